"""The snapshot of a person's documents: whole or not at all, from folders, files and archives, nothing from outside."""

import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import tasks.intake
from tasks.errors import InputError
from tasks.intake import Entry, copy_corpus, write

FILES = {"index.md": "# Index\n", "it/vpn.md": "# VPN\n", "it/.hidden.md": "no", ".git/config": "no", "logo.png": "png"}
KEPT = {"index.md", "it/vpn.md", "logo.png"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return fill(tmp_path / "mine", FILES)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "aside/raw/documents"


def fill(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
        os.utime(place, (1_700_000_000, 1_700_000_000))
    return folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def refused(sources: list[Path], target: Path) -> str:
    """The message; after it there is no snapshot, and nothing half made beside its place."""
    with pytest.raises(InputError) as error:
        copy_corpus(sources, target)
    assert not target.exists()
    assert not target.parent.exists() or not list(target.parent.iterdir())
    return str(error.value)


def test_a_folder_is_copied_with_its_times_into_a_place_that_is_made_for_it(source: Path, target: Path) -> None:
    assert copy_corpus([source], target) == 3
    assert names(target) == KEPT
    assert (target / "it/vpn.md").stat().st_mtime == 1_700_000_000
    assert [path.name for path in target.parent.iterdir()] == ["documents"]


def test_what_stands_in_the_place_of_the_snapshot_is_not_touched(source: Path, target: Path) -> None:
    fill(target, {"old.md": "the corpus of yesterday"})
    with pytest.raises(FileExistsError):
        copy_corpus([source], target)
    assert names(target) == {"old.md"}


def test_of_several_sources_each_keeps_its_name(source: Path, target: Path, tmp_path: Path) -> None:
    other = fill(tmp_path / "other", {"index.md": "another"})
    single = fill(tmp_path, {"single.txt": "text"}) / "single.txt"
    assert copy_corpus([source, other, single], target) == 5
    assert names(target) == {"mine/index.md", "mine/it/vpn.md", "mine/logo.png", "other/index.md", "single.txt"}
    shutil.rmtree(target)
    assert "mine/index.md would be written twice" in refused([source, source], target)


def tar(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=folder.name)
    return path


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in FILES:
            archive.write(folder / name, name)
    return path


def test_an_archive_gives_the_same_files_as_its_folder(source: Path, target: Path, tmp_path: Path) -> None:
    for archive in (tar(source, tmp_path / "a.tar.gz"), zipped(source, tmp_path / "a.zip")):
        assert copy_corpus([archive], target) == 3
        assert names(target) == KEPT
        assert (target / "it/vpn.md").read_text() == "# VPN\n"
        assert (target / "it/vpn.md").stat().st_mtime == 1_700_000_000
        shutil.rmtree(target)


def evil_tar(path: Path, change: Callable[[tarfile.TarInfo], None]) -> Path:
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("page.md")
        member.size = 4
        change(member)
        archive.addfile(member, io.BytesIO(b"text"))
    return path


@pytest.mark.parametrize("name", ["../page.md", "/etc/page.md", "a/../../page.md", "..\\page.md", "C:\\page.md"])
def test_a_member_that_would_land_outside_is_refused(target: Path, tmp_path: Path, name: str) -> None:
    archive = evil_tar(tmp_path / "a.tar", lambda member: setattr(member, "name", name))
    assert "would land outside" in refused([archive], target)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr(name, "text")
    assert "would land outside" in refused([tmp_path / "a.zip"], target)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_link_or_device_in_an_archive_is_refused(target: Path, tmp_path: Path, kind: bytes) -> None:
    archive = evil_tar(tmp_path / "a.tar", lambda member: setattr(member, "type", kind))
    assert "is a link or a device" in refused([archive], target)


def test_an_archive_that_unpacks_to_too_much_is_refused(
    source: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.intake, "MAX_UNPACKED", 10)
    for archive in (tar(source, tmp_path / "a.tgz"), zipped(source, tmp_path / "a.zip")):
        assert "unpacks to more than 10 bytes" in refused([archive], target)


def test_a_damaged_archive_is_refused(source: Path, target: Path, tmp_path: Path) -> None:
    for archive in (tar(source, tmp_path / "a.tar.gz"), zipped(source, tmp_path / "a.zip")):
        archive.write_bytes(archive.read_bytes()[:150])
        assert "is not a readable archive" in refused([archive], target)
    archive = zipped(source, tmp_path / "b.zip")
    archive.write_bytes(archive.read_bytes().replace(b"# VPN", b"# VPX"))
    assert "cannot be unpacked" in refused([archive], target)


def test_links_out_and_special_files_are_refused_all_at_once(source: Path, target: Path, tmp_path: Path) -> None:
    (source / "inside.md").symlink_to("index.md")
    assert copy_corpus([source], target) == 4
    assert not (target / "inside.md").is_symlink()
    shutil.rmtree(target)
    (source / "out.md").symlink_to(tmp_path / "elsewhere.md")
    (source / "away").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(source / "pipe.md")
    message = refused([source], target)
    for part in ("out.md: a symlink to nothing", "away: a symlink out of the folder", "pipe.md: a FIFO"):
        assert part in message


def test_missing_empty_and_strange_sources_are_refused(target: Path, tmp_path: Path) -> None:
    assert "does not exist" in refused([tmp_path / "nowhere"], target)
    assert "neither a folder nor a plain file" in refused([Path("/dev/null")], target)
    assert "no documents are named" in refused([], target)
    (tmp_path / "empty").mkdir()
    assert "corpus has 0 documents" in refused([tmp_path / "empty"], target)
    pictures = fill(tmp_path / "pictures", {"a.png": "png"})
    assert "holds no file of a kind that is read (.md" in refused([pictures], target)


def test_a_corpus_that_overlaps_with_its_snapshot_is_refused(target: Path, tmp_path: Path) -> None:
    folder = fill(tmp_path / "aside", {"page.md": "text"})
    with pytest.raises(InputError, match="overlaps with"):
        copy_corpus([folder], target)
    assert names(folder) == {"page.md"}
    within = fill(target, {"page.md": "text"})
    for source in (within, within / "page.md"):
        with pytest.raises(InputError, match="overlaps with"):
            copy_corpus([source], target)
    assert names(within) == {"page.md"}


def test_a_lack_of_space_is_told_in_bytes(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(source)._replace(free=5)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    assert "17 bytes are needed, 5 are free" in refused([source], target)


def test_a_file_that_grows_while_it_is_copied_is_refused(tmp_path: Path) -> None:
    listed_as_shorter = Entry("index.md", 3, 0.0, lambda: io.BytesIO(b"# Index"))
    with pytest.raises(InputError, match=r"index\.md changed while it was copied"):
        write([listed_as_shorter], tmp_path)


def rewritten(folder: Path) -> None:
    """As long as it was."""
    (folder / "index.md").write_text("# Xedni\n")


def moved(folder: Path) -> None:
    (folder / "it/vpn.md").rename(folder / "vpn.md")


def added(folder: Path) -> None:
    (folder / "it/new.md").write_text("new")


@pytest.mark.parametrize(
    ("change", "named"),
    [(rewritten, ["index.md"]), (moved, ["it/vpn.md", "vpn.md"]), (added, ["it/new.md"])],
)
def test_a_corpus_that_changes_while_it_is_copied_is_refused_with_what_changed(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], named: list[str]
) -> None:
    """F41."""
    copy_all = tasks.intake.write
    monkeypatch.setattr(tasks.intake, "write", lambda entries, folder: (copy_all(entries, folder), change(source)))
    message = refused([source], target)
    assert message.splitlines()[1:] == [f"  {source / name}" for name in named]
    (source / ".git/config").write_text("what is hidden is not copied, and may change")
    monkeypatch.undo()
    assert copy_corpus([source], target) >= 3


def test_an_archive_or_file_that_changes_while_it_is_copied_is_refused(
    source: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_all = tasks.intake.write
    for place in (tar(source, tmp_path / "a.tar.gz"), fill(tmp_path, {"single.txt": "text"}) / "single.txt"):
        touch = lambda place=place: os.utime(place, (1, 1))  # noqa: E731
        monkeypatch.setattr(tasks.intake, "write", lambda entries, folder, touch=touch: (copy_all(entries, folder), touch()))
        assert str(place) in refused([place], target)


def test_links_in_a_circle_are_named_and_not_followed(source: Path, target: Path) -> None:
    (source / "a.md").symlink_to("b.md")
    (source / "b.md").symlink_to("a.md")
    (source / "it/up").symlink_to("..", target_is_directory=True)
    message = refused([source], target)
    for part in ("a.md: a symlink to nothing", "b.md: a symlink to nothing", "up: a symlink to a folder"):
        assert part in message
