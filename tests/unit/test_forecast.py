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


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of day one, cut into passages; the index never ran."""
    folder = tmp_path_factory.mktemp("forecast")
    for name in ("base", "embedder"):
        (folder / name).mkdir()
    clone = tiny.make_clone(folder / "clone", folder / "base", folder / "embedder")
    tiny.write_corpus(clone / "data/raw")
    done = tiny.dvc(clone, "repro", "chunks")
    assert done.returncode == 0, done.stdout + done.stderr
    return clone


@pytest.fixture(scope="module")
def modelled(cut: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """And with a model that DVC holds for made."""
    clone = tiny.copy_clone(cut, tmp_path_factory.mktemp("modelled") / "clone")
    for name in ("embedder", "base"):
        (clone / "data/models" / name).mkdir(parents=True)
    (clone / "data/models/embedder/model.safetensors").write_bytes(b"weights")
    done = tiny.dvc(clone, "commit", "--force", "models")
    assert done.returncode == 0, done.stdout + done.stderr
    return clone


def own(clone: Path, folder: Path) -> Settings:
    made = settings_of(tiny.copy_clone(clone, folder / "clone"))
    os.environ.update(child_environment(made))
    return made


@pytest.fixture
def settings(cut: Path, tmp_path: Path) -> Settings:
    return own(cut, tmp_path)


@pytest.fixture
def with_model(modelled: Path, tmp_path: Path) -> Settings:
    return own(modelled, tmp_path)


def texts(settings: Settings) -> list[str]:
    return [passage["embedded"] for passage in read_jsonl(settings.root / "data/chunks/passages.jsonl")]


def embed(settings: Settings, known: list[str], seconds: float) -> None:
    """As the index leaves it: the model's vectors, and a manifest that names it."""
    digest = folder_digest(settings.root / "data/models/embedder")
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


def test_a_build_that_was_interrupted_embeds_the_rest_at_the_pace_that_it_had(with_model: Settings) -> None:
    known = texts(with_model)
    embed(with_model, known[:10], 50.0)
    rest = len(set(known)) - 10
    assert expected(with_model)[:2] == (rest, round(rest * 5 / 60, 1))
    embed(with_model, known, 1.0)
    assert expected(with_model) == (0, 0.0, "to embed: nothing, every passage has its vector")


def test_a_changed_page_counts_its_new_passages_and_only_those(with_model: Settings) -> None:
    embed(with_model, texts(with_model), 60.0)
    before = set(texts(with_model))
    tiny.write_corpus(with_model.root / "data/raw", day=2)
    assert tiny.dvc(with_model.root, "repro", "documents").returncode == 0
    found = plan(with_model)["embedding"]
    assert tiny.dvc(with_model.root, "repro", "chunks").returncode == 0
    new = set(texts(with_model)) - before
    assert found["pages"] == 3  # two that changed and one that came
    assert found["passages"] == len(new) > 0
    assert plan(with_model)["embedding"]["passages"] == len(new)


def test_another_rule_of_cutting_counts_what_it_cuts_anew(with_model: Settings) -> None:
    embed(with_model, texts(with_model), 60.0)
    tiny.change_params(with_model.root, "chunks.yaml", {"max_words": 61})
    found = plan(with_model)["embedding"]
    before = set(texts(with_model))
    assert tiny.dvc(with_model.root, "repro", "chunks").returncode == 0
    assert found["passages"] == len(set(texts(with_model)) - before)


def test_another_embedder_embeds_everything(with_model: Settings) -> None:
    embed(with_model, texts(with_model), 60.0)
    (with_model.root / "data/models/embedder/model.safetensors").write_bytes(b"other weights")
    assert tiny.dvc(with_model.root, "commit", "--force", "models").returncode == 0
    assert expected(with_model)[:2] == (len(set(texts(with_model))), None)
    tiny.change_params(with_model.root, "models.yaml", {"embedder": {"max_tokens": 99}})
    assert expected(with_model)[:2] == (len(texts(with_model)), None)


def test_tuning_both_sides_embeds_everything_anew_at_the_pace_of_the_plain_embedder_and_tuning_one_nothing(
    with_model: Settings,
) -> None:
    embed(with_model, texts(with_model), 300.0)
    count = len(set(texts(with_model)))
    tiny.change_params(with_model.root, "retriever.yaml", {"sides": "both"})
    passages, minutes, says = expected(with_model)
    assert (passages, minutes) == (count, 5.0)
    assert says.startswith(f"to embed: about {count} passages, about 5.0 minutes, after training: `sides: both`")
    tiny.change_params(with_model.root, "retriever.yaml", {"sides": "query"})
    assert expected(with_model)[0] == 0


def test_an_embedder_that_was_tuned_on_both_sides_is_the_one_whose_vectors_count(with_model: Settings) -> None:
    embed(with_model, texts(with_model), 60.0)
    encoder = with_model.root / "data/retriever/encoder"
    encoder.mkdir(parents=True)
    (encoder / "model.safetensors").write_bytes(b"tuned weights")
    write_json(encoder.parent / "retriever.json", {"sides": "both", "encoder": {}})
    assert tiny.dvc(with_model.root, "repro", "questions").returncode == 0
    write_json(with_model.root / "data/metrics/retriever.json", {})
    assert expected(with_model)[0] == 0  # `sides: none` will leave the plain embedder, whose vectors are there
    done = tiny.dvc(with_model.root, "commit", "--force", "retriever")
    assert done.returncode == 0, done.stderr
    assert expected(with_model)[0] == len(set(texts(with_model)))


def test_a_plan_imports_nothing_heavy(with_model: Settings) -> None:
    embed(with_model, texts(with_model), 60.0)
    code = (
        "import json, sys; from flows.cli import run; assert run(['plan']) == 0; "
        "print(json.dumps(sorted({'torch', 'lancedb', 'mlflow', 'prefect', 'transformers', 'pyarrow'} & set(sys.modules))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=with_model.root,
        env=tiny.outside_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "to embed: nothing" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == []
