from pathlib import Path

import pytest
import tiny
from workspace import candidate_of, change, write_adapter, write_documents, write_workspace

from flows.candidate import as_release
from tasks.manifest import load_release, release_id, render
from tasks.records import read_jsonl, write_json, write_jsonl, write_text


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_workspace(tmp_path)
    return tmp_path


def identity(root: Path) -> str:
    return release_id(as_release(candidate_of(root), "rag+lora"))


def test_the_manifest_of_a_workspace_is_read_back_as_it_was(root: Path) -> None:
    release = as_release(candidate_of(root), "rag+lora")
    assert load_release(render(release)) == release
    assert release.corpus.documents == 4 and release.arm == "rag+lora"
    assert set(release.tokenizer) == {"tokenizer.json", "chat_template.jinja"}


def test_the_same_content_elsewhere_is_the_same_release(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("elsewhere")
    write_workspace(other)
    assert identity(other) == identity(root)


def test_where_the_file_of_a_page_lay_is_not_in_the_release(root: Path) -> None:
    before = identity(root)
    path = root / "data/documents/documents.jsonl"
    write_jsonl(path, [record | {"path": f"{record['id']}.markdown", "format": "md"} for record in read_jsonl(path)])
    assert identity(root) == before


def test_a_release_pins_the_prompt_that_was_measured_not_the_params_of_later(root: Path) -> None:
    before = as_release(candidate_of(root), "rag")
    tiny.change_params(root, "prompt.yaml", {"system": "changed while it was measured", "max_new_tokens": 7})
    after = as_release(candidate_of(root), "rag")
    assert after == before
    assert after.decoding == {"do_sample": False, "max_new_tokens": 6, "dtype": "float32"}


def test_what_was_measured_is_not_in_the_release(root: Path) -> None:
    before = identity(root)
    change(root / "data/evaluation/report.json", retrieval={"mrr": 0.1})
    change(root / "data/metrics/index.json", seconds=99)
    write_text(root / "dvc.lock", "schema: '2.0'\nstages: {x: {}}\n")
    assert identity(root) == before


def test_every_piece_is_in_the_release(root: Path) -> None:
    found = [identity(root)]

    def after(what: None) -> None:
        found.append(identity(root))

    after(write_documents(root, {"page-1": "changed"}))
    after(write_adapter(root, 2.0))
    after(change(root / "data/index/manifest.json", tag="other"))
    after(change(root / "data/retrieval/settings.json", k=2))
    after(change(root / "data/evaluation/prompt.json", shot_messages={"rag": [{"role": "user", "content": "x"}]}))
    after(change(root / "data/evaluation/prompt.json", precision="bfloat16"))
    after(write_text(root / "data/models/base/chat_template.jinja", "{{ other }}"))
    after(change(root / "data/models/base/tokenizer.json", version="2.0"))
    after(change(root / "data/models/base/tandem.json", id="other"))
    assert len(set(found)) == len(found) == 10


def test_an_arm_without_an_adapter_pins_none(root: Path) -> None:
    release = as_release(candidate_of(root), "rag")
    assert release.adapter is None
    write_adapter(root, 5.0)
    assert as_release(candidate_of(root), "rag") == release


def test_a_template_inside_the_tokenizers_configuration_counts_as_well(root: Path) -> None:
    (root / "data/models/base/chat_template.jinja").unlink()
    write_json(root / "data/models/base/tokenizer_config.json", {"chat_template": "one"})
    before = as_release(candidate_of(root), "rag")
    write_json(root / "data/models/base/tokenizer_config.json", {"chat_template": "two"})
    assert as_release(candidate_of(root), "rag").chat_template != before.chat_template
