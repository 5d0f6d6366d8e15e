"""`tandem plan` says what the index would embed before it starts, without a model, a table or a flow."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from hashing import vectors_of
from workspace import settings_of

from flows.planning import plan
from flows.settings import Settings, child_environment
from tasks.embedding import VectorStore
from tasks.records import folder_digest, read_jsonl, write_json


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The corpus of day one, cut into passages; the index never ran."""
    for name in ("base", "embedder"):
        (tmp_path / name).mkdir()
    made = settings_of(tiny.make_clone(tmp_path / "clone", tmp_path / "base", tmp_path / "embedder"))
    os.environ.update(child_environment(made))
    tiny.write_corpus(made.root / "data/raw")
    done = tiny.dvc(made.root, "repro", "chunks")
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def texts(settings: Settings) -> list[str]:
    return [passage["embedded"] for passage in read_jsonl(settings.root / "data/chunks/passages.jsonl")]


def embed(settings: Settings, known: list[str], seconds: float) -> None:
    """As the index leaves it: a model that DVC holds for made, its vectors, and a manifest that names it."""
    folder = settings.root / "data/models"
    for name in ("embedder", "base"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "embedder/model.safetensors").write_bytes(b"weights")
    done = tiny.dvc(settings.root, "commit", "--force", "models")
    assert done.returncode == 0, done.stdout + done.stderr
    digest = folder_digest(folder / "embedder")
    VectorStore(settings.vectors, digest).put(known, vectors_of(known), seconds)
    write_json(settings.root / "data/index/manifest.json", {"embedder": {"digest": digest}})


def expected(settings: Settings) -> Any:
    found = plan(settings)["embedding"]
    return found["passages"], found["minutes"], found["says"]


def test_before_anything_ran_the_number_is_not_known(settings: Settings) -> None:
    tiny.change_params(settings.root, "documents.yaml", {"max_megabytes": 7})
    count, minutes, says = expected(settings)
    assert (count, minutes) == (None, None) and "is known when" in says


def test_a_first_build_embeds_every_passage_and_nobody_knows_for_how_long(settings: Settings) -> None:
    count, minutes, says = expected(settings)
    assert (count, minutes) == (len(set(texts(settings))), None)
    assert says == f"to embed: about {count} passages, no earlier build tells how long"


def test_a_build_that_was_interrupted_embeds_the_rest_at_the_pace_that_it_had(settings: Settings) -> None:
    known = texts(settings)
    embed(settings, known[:10], 50.0)
    rest = len(set(known)) - 10
    assert expected(settings)[:2] == (rest, round(rest * 5 / 60, 1))
    embed(settings, known, 1.0)
    assert expected(settings) == (0, 0.0, "to embed: nothing, every passage has its vector")


def test_a_changed_page_counts_its_new_passages_and_only_those(settings: Settings) -> None:
    embed(settings, texts(settings), 60.0)
    before = set(texts(settings))
    tiny.write_corpus(settings.root / "data/raw", day=2)
    assert tiny.dvc(settings.root, "repro", "documents").returncode == 0
    found = plan(settings)["embedding"]
    assert tiny.dvc(settings.root, "repro", "chunks").returncode == 0
    new = set(texts(settings)) - before
    assert found["pages"] == 3  # two that changed and one that came
    assert found["passages"] == len(new) > 0
    assert plan(settings)["embedding"]["passages"] == len(new)


def test_another_rule_of_cutting_counts_what_it_cuts_anew(settings: Settings) -> None:
    embed(settings, texts(settings), 60.0)
    tiny.change_params(settings.root, "chunks.yaml", {"max_words": 61})
    found = plan(settings)["embedding"]
    before = set(texts(settings))
    assert tiny.dvc(settings.root, "repro", "chunks").returncode == 0
    assert found["passages"] == len(set(texts(settings)) - before)


def test_another_embedder_embeds_everything(settings: Settings) -> None:
    embed(settings, texts(settings), 60.0)
    (settings.root / "data/models/embedder/model.safetensors").write_bytes(b"other weights")
    assert tiny.dvc(settings.root, "commit", "--force", "models").returncode == 0
    assert expected(settings)[:2] == (len(set(texts(settings))), None)
    tiny.change_params(settings.root, "models.yaml", {"embedder": {"max_tokens": 99}})
    assert expected(settings)[:2] == (len(texts(settings)), None)


def test_a_plan_imports_nothing_heavy(settings: Settings) -> None:
    embed(settings, texts(settings), 60.0)
    code = (
        "import json, sys; from flows.cli import run; assert run(['plan']) == 0; "
        "print(json.dumps(sorted({'torch', 'lancedb', 'mlflow', 'prefect', 'transformers', 'pyarrow'} & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=settings.root,
        env=tiny.outside_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "to embed: nothing" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == []
