import errno
import gzip
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import flows.store
from flows.store import open_file, open_folder, seal_file, seal_folder
from tasks.errors import InputError, IntegrityError, TandemError
from tasks.failpoints import PASSAGES, declared
from tasks.records import file_digest, folder_digest, folder_digests

ROOT = Path(flows.store.__file__).parents[1]
FAILPOINTS = declared(Path(flows.store.__file__))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def make_model(folder: Path, seed: int = 0) -> Path:
    """An embedder in small, in the layout of sentence-transformers."""
    (folder / "1_Pooling").mkdir(parents=True)
    weights = np.random.default_rng(seed).normal(size=(4, 8)).astype(np.float32)
    save_file({"layer.weight": weights}, folder / "model.safetensors")
    contents = {
        "config.json": {"model_type": "bert", "hidden_size": 8, "text_config": {"layers": 1}},
        "tokenizer.json": {"model": {"vocab": {"auto_map": 7}}},  # a word of the vocabulary is no setting
        "modules.json": [{"path": "", "type": "sentence_transformers.models.Transformer"}],
        "1_Pooling/config.json": {"pooling_mode": "mean"},
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "README.md").write_text("# A model\n")
    return folder


def below(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*")) if root.exists() else []


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o600)
    path.write_bytes(data)


def test_a_sealed_folder_opens_under_its_own_digest_private_and_read_only(tmp_path: Path, model: Path) -> None:
    digest = seal_folder(tmp_path / "store", model)
    assert digest == folder_digest(model)
    opened = open_folder(tmp_path / "store", digest)
    assert opened == tmp_path / "store" / "objects" / digest
    assert folder_digests(opened) == folder_digests(model)
    assert {path.stat().st_mode & 0o777 for path in opened.rglob("*") if path.is_file()} == {0o400}
    assert {path.stat().st_mode & 0o777 for path in [opened, *opened.rglob("*")] if path.is_dir()} == {0o700}


@given(st.binary(max_size=200))
@settings(max_examples=30)
def test_a_sealed_file_reads_back_whatever_it_holds(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    root = tmp_path_factory.getbasetemp() / "shared-store"
    digest = seal_file(root, data)
    assert open_file(root, digest) == data
    assert seal_file(root, data) == digest


def test_a_file_is_sealed_from_its_path_or_its_content_alike(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(b"{}")
    from_path = seal_file(tmp_path / "store", tmp_path / "report.json")
    assert from_path == seal_file(tmp_path / "store", b"{}") == file_digest(tmp_path / "report.json")
    assert len(below(tmp_path / "store" / "files")) == 1
    with pytest.raises(InputError, match=r"gone\.json is missing: it cannot be sealed"):
        seal_file(tmp_path / "store", tmp_path / "gone.json")


def test_sealing_again_changes_nothing(tmp_path: Path, model: Path) -> None:
    root = tmp_path / "store"
    digest = seal_folder(root, model)
    before = {name: (root / name).stat().st_ino for name in below(root)}
    assert seal_folder(root, model) == digest
    assert {name: (root / name).stat().st_ino for name in below(root)} == before


def test_the_same_content_is_stored_once_whatever_its_folder_is_called(tmp_path: Path, model: Path) -> None:
    other = shutil.copytree(model, tmp_path / "other")
    assert seal_folder(tmp_path / "store", model) == seal_folder(tmp_path / "store", other)
    assert len(list((tmp_path / "store" / "objects").iterdir())) == 1


def test_any_flipped_byte_of_any_file_is_found_named_with_both_digests_and_mended_by_sealing_again(
    tmp_path: Path, model: Path
) -> None:
    root = tmp_path / "store"
    digest = seal_folder(root, model)
    listing = folder_digests(model)
    assert len(listing) == 7
    for name, expected in listing.items():
        path = root / "objects" / digest / name
        data = path.read_bytes()
        for offset in {round(at * (len(data) - 1) / 19) for at in range(20)}:
            overwrite(path, data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
            with pytest.raises(IntegrityError) as raised:
                open_folder(root, digest)
            assert f"{name}: expected sha256 {expected}, found {file_digest(path)}" in str(raised.value)
            assert "seal the same content again" in str(raised.value)
        assert seal_folder(root, model) == digest
        open_folder(root, digest)


def test_a_flipped_byte_of_a_single_file_or_of_a_list_of_files_is_found_and_mended(tmp_path: Path, model: Path) -> None:
    root = tmp_path / "store"
    digest = seal_folder(root, model)
    path = root / "files" / digest
    data = path.read_bytes()
    for offset in range(0, len(data), 40):
        overwrite(path, data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        for use in (open_file, open_folder):
            with pytest.raises(IntegrityError, match=f"{digest} is damaged: expected sha256 {digest}, found [0-9a-f]{{64}}"):
                use(root, digest)
    seal_folder(root, model)
    open_folder(root, digest)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    r"config\.json is missing \(expected sha256 [0-9a-f]{64}\)": lambda folder: (folder / "config.json").unlink(),
    r"model\.py was not sealed": lambda folder: (folder / "model.py").touch(),
    r"1_Pooling/x\.bin was not sealed": lambda folder: (folder / "1_Pooling" / "x.bin").touch(),
    "away was not sealed": lambda folder: (folder / "away").symlink_to(folder),
    "pipe was not sealed": lambda folder: os.mkfifo(folder / "pipe"),
    r"README\.md is missing.*README\.md was not sealed": lambda folder: replace_by_link(folder / "README.md"),
    "the folder is missing": shutil.rmtree,
}


def replace_by_link(path: Path) -> None:
    copy = shutil.copy(path, path.parents[3] / "elsewhere")
    path.unlink()
    path.symlink_to(copy)


@pytest.mark.parametrize("message", DAMAGE)
def test_a_missing_foreign_or_linked_file_is_found_and_mended_by_sealing_again(message: str, tmp_path: Path, model: Path) -> None:
    root = tmp_path / "store"
    digest = seal_folder(root, model)
    DAMAGE[message](root / "objects" / digest)
    with pytest.raises(IntegrityError, match=message):
        open_folder(root, digest)
    seal_folder(root, model)
    assert folder_digests(open_folder(root, digest)) == folder_digests(model)
    assert [path.name for path in (root / "objects").iterdir()] == [digest]


def test_what_was_never_sealed_is_missing_and_what_is_no_digest_is_no_path(tmp_path: Path, model: Path) -> None:
    seal_folder(tmp_path / "store", model)
    for use in (open_file, open_folder):
        with pytest.raises(IntegrityError, match=f"{'a' * 64} is missing"):
            use(tmp_path / "store", "a" * 64)
        for text in ("../../model", "", "A" * 64, "a" * 63, "a" * 64 + "\n", "/etc/passwd"):
            with pytest.raises(InputError, match="is not a sha256 digest"):
                use(tmp_path / "store", text)


class Payload:
    """Unpickling it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.marker),))


PICKLES = (
    "weights.bin",
    "model.pt",
    "model.pkl",
    "model.pth",
    "model.ckpt",
    "model.joblib",
    "vectors.npy",
    "x.npz",
    "a.gz",
)
FOREIGN = (
    *PICKLES,
    "modeling.py",
    "native.so",
    ".hidden.json",
    "MODEL.SAFETENSORS",
    "model.safetensors.bak",
    "noextension",
)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_outside_the_allow_list_is_refused_before_anything_is_copied(name: str, tmp_path: Path, model: Path) -> None:
    (model / name).write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    check_refused(tmp_path, model, name)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("name", ["model.safetensors", "adapter_model.safetensors", "1_Pooling/model.safetensors"])
def test_a_pickle_renamed_to_safetensors_is_refused(
    name: str, pack: Callable[[bytes], bytes], tmp_path: Path, model: Path
) -> None:
    (model / name).write_bytes(pack(pickle.dumps(Payload(tmp_path / "ran"))))
    check_refused(tmp_path, model, name)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        (2).to_bytes(8, "little") + b"[]",
        (200 * 2**20).to_bytes(8, "little") + b"{}",
        (2**63).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"{{}}",
        (80).to_bytes(8, "little") + b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'.ljust(80) + b"\x00" * 8,
    ],
    ids=["empty", "short", "list", "cap", "huge", "no-json", "cut"],
)
def test_a_torn_safetensors_file_is_refused(data: bytes, tmp_path: Path, model: Path) -> None:
    (model / "model.safetensors").write_bytes(data)
    check_refused(tmp_path, model, r"model\.safetensors")


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_safetensors_cut_short_are_refused(share: float, tmp_path: Path, model: Path) -> None:
    data = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(data[: int(len(data) * share)])
    check_refused(tmp_path, model, r"model\.safetensors")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", {"auto_map": {"AutoModel": "evil--modeling.Model"}}),
        ("config.json", {"auto_map": None}),
        ("config.json", {"_attn_implementation_internal": "evil/kernel"}),
        ("config.json", {"text_config": {"_attn_implementation_internal": "evil/kernel"}}),
        ("config.json", {"layers": [{"auto_map": {}}]}),
        ("config.json", {"attn_implementation": "evil/kernel"}),
        ("config.json", {"attn_implementation": {"": "evil/kernel"}}),
        ("config.json", {"trust_remote_code": True}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}),
        ("adapter_config.json", {"auto_map": {}}),
        ("1_Pooling/config.json", {"auto_map": {}}),
        ("modules.json", [{"path": "", "type": "evil.Transformer"}]),
        ("modules.json", [{"path": "", "type": "os.system"}]),
    ],
)
def test_a_configuration_that_asks_for_code_is_refused(name: str, content: Any, tmp_path: Path, model: Path) -> None:
    (model / name).write_text(json.dumps(content))
    check_refused(tmp_path, model, "never runs")


@pytest.mark.parametrize("data", [b"", b"{", b'{"model_type": "bert"', b"\xff\xfe", b"[" * 100_000])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_torn_json_is_refused(name: str, data: bytes, tmp_path: Path, model: Path) -> None:
    (model / name).write_bytes(data)
    check_refused(tmp_path, model, "is not valid JSON")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "link.json").symlink_to(folder / "config.json"),
        lambda folder: (folder / "2_Dense").symlink_to(folder / "1_Pooling"),
        lambda folder: os.mkfifo(folder / "pipe.json"),
        lambda folder: shutil.copytree(folder / "1_Pooling", folder / "checkpoint-40"),
        lambda folder: shutil.copytree(folder / "1_Pooling", folder / "1_Pooling" / "2_Dense"),
        lambda folder: (folder / "a\nb.json").write_text("{}"),
        lambda folder: (folder / "model.safetensors").unlink(),
    ],
    ids=["link", "folder-link", "pipe", "checkpoint", "nested", "newline", "no-weights"],
)
def test_links_devices_unknown_folders_and_a_model_without_weights_are_refused(
    spoil: Callable[[Path], Any], tmp_path: Path, model: Path
) -> None:
    spoil(model)
    check_refused(tmp_path, model, str(model))


def test_what_is_no_folder_cannot_be_sealed(tmp_path: Path) -> None:
    for path in (tmp_path / "gone", Path(__file__)):
        with pytest.raises(InputError, match="is not a folder"):
            seal_folder(tmp_path / "store", path)


def check_refused(tmp_path: Path, model: Path, message: str) -> None:
    with pytest.raises(InputError, match=message):
        seal_folder(tmp_path / "store", model)
    assert below(tmp_path / "store") == []
    assert not (tmp_path / "ran").exists()


CHILD = "import sys; from pathlib import Path; from flows.store import seal_folder; seal_folder(*map(Path, sys.argv[1:]))"


def start(root: Path, model: Path, setting: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), str(model)],
        env=os.environ | {"TANDEM_FAILPOINT": setting, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("action", ["kill", "raise"])
def test_whoever_dies_while_mending_leaves_nothing_torn_and_the_next_one_finishes(
    action: str, tmp_path: Path, model: Path
) -> None:
    """The object is damaged and its list of files is gone, so that every failpoint is passed."""
    assert len(FAILPOINTS) >= 7
    other = make_model(tmp_path / "other", seed=1)
    children = {}
    for name in FAILPOINTS:
        root = tmp_path / name
        sound, digest = seal_folder(root, other), seal_folder(root, model)
        overwrite(root / "objects" / digest / "README.md", b"damaged")
        (root / "files" / digest).unlink()
        children[name] = start(root, model, f"{name}:{action}")
    for name, child in children.items():
        _, said = child.communicate(timeout=60)
        assert child.returncode == (-signal.SIGKILL if action == "kill" else 1), (name, said)
        open_folder(tmp_path / name, sound)
        assert seal_folder(tmp_path / name, model) == digest
        assert folder_digests(open_folder(tmp_path / name, digest)) == folder_digests(model)
        seal_file(tmp_path / name, b"something else")
        assert not [path for path in below(tmp_path / name) if ".aside-" in path], name


ASIDE = [name for name in FAILPOINTS if name not in ("store.before-sync", "store.before-file-sync")]  # those only sync


@pytest.mark.parametrize("name", ASIDE)
def test_a_full_disk_loses_nothing_and_the_error_says_what_where_and_how(
    name: str, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mending a damaged folder is where something could be lost that was there."""
    root = tmp_path / "store"
    sound, digest = seal_folder(root, make_model(tmp_path / "other", seed=1)), seal_folder(root, model)
    overwrite(root / "objects" / digest / "README.md", b"damaged")
    (root / "files" / digest).unlink()
    PASSAGES.clear()
    monkeypatch.setenv("TANDEM_FAILPOINT", f"{name}:enospc")
    with pytest.raises(TandemError, match=rf"no space left on the disk .* of {root}/.*free some.*run the same command again"):
        seal_folder(root, model)
    monkeypatch.delenv("TANDEM_FAILPOINT")
    open_folder(root, sound)
    assert not [path for path in below(root) if ".aside-" in path and "damaged" not in path]
    assert seal_folder(root, model) == digest
    assert folder_digests(open_folder(root, digest)) == folder_digests(model)


def test_a_place_that_was_taken_and_is_free_when_it_is_looked_at_is_taken(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where another one has put its copy there, and a third, which had found a damaged one before, moved that away."""
    rename, refused = Path.rename, list[Path]()

    def taken_once(path: Path, target: Path) -> Path:
        if not refused:
            refused.append(path)
            raise OSError(errno.ENOTEMPTY, "Directory not empty", str(target))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", taken_once)
    digest = seal_folder(tmp_path / "store", model)
    assert refused and folder_digests(open_folder(tmp_path / "store", digest)) == folder_digests(model)


def test_many_threads_seal_the_same_damaged_folder_at_once_and_it_is_whole(tmp_path: Path, model: Path) -> None:
    root = tmp_path / "store"
    digest = seal_folder(root, model)
    overwrite(root / "objects" / digest / "README.md", b"damaged")
    digests: list[str] = []
    threads = [threading.Thread(target=lambda: digests.append(seal_folder(root, model))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert digests == [digest] * 6
    open_folder(root, digest)
    assert [path.name for path in (root / "objects").iterdir()] == [digest]


def test_a_source_that_changes_while_it_is_sealed_is_refused(tmp_path: Path, model: Path) -> None:
    child = start(tmp_path / "store", model, "store.before-copy:stop")
    os.waitpid(child.pid, os.WUNTRACED)
    (model / "README.md").write_text("# Another model\n")
    child.send_signal(signal.SIGCONT)
    _, said = child.communicate(timeout=60)
    assert "README.md changed while it was sealed" in said
    assert list((tmp_path / "store" / "objects").iterdir()) == []


def test_a_full_disk_is_told_with_the_bytes_needed(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(InputError, match=r"no space to seal .*: [0-9,]+ bytes needed, 10 free"):
        seal_folder(tmp_path / "store", model)
