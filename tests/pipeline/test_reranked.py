"""A release whose passages a cross-encoder orders, among others without one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from looking import World, entries, executed_stages, settings

from flows.cli import run
from flows.opening import manifest_text, open_release
from tasks import models
from tasks.manifest import load_release
from tasks.params_files import load
from tasks.records import folder_digest, read_json, write_json
from tasks.reranking import PINNED, RERANKER, Reranker, sigmoid
from tasks.search import fused

pytestmark = pytest.mark.slow

QUESTION = "How many days of holiday do bakers have?"


def name_reranker(clone: Path, reranker: Path) -> None:
    shutil.copytree(reranker, clone / "tiny/reranker")
    tiny.change_params(clone, "models.yaml", {"reranker": {"source": "folder", "id": "tiny/reranker", "max_tokens": 64}})


def ingest(world: World, day: int) -> None:
    corpus = world.folder / f"day-{day}"
    assert run(["ingest", "--documents", str(corpus / "documents"), "--questions", str(corpus / "questions.jsonl")]) == 0


def adopt(clone: Path) -> str:
    """What the stage leaves where it helps, which it cannot on questions that the full text answers. Returns its digest."""
    out = clone / "data/retrieval"
    models.write_reranker(load(models.ModelsParams, clone / "params").reranker, out / RERANKER)
    write_json(out / PINNED, Reranker(out / RERANKER).identity())
    write_json(out / "settings.json", read_json(out / "settings.json") | {"rerank": 20})
    done = tiny.dvc(clone, "commit", "--force", "retrieval")
    assert done.returncode == 0, done.stderr
    return folder_digest(out / RERANKER)


def reranker_of(number: int) -> str | None:
    release = load_release(manifest_text(settings(), str(next(each.release for each in entries() if each.number == number))))
    return release.reranker.digest if release.reranker else None


def test_a_reranker_is_released_dropped_where_it_does_not_help_and_is_back_after_a_rollback(
    world: World, copy: Callable[[Path], Path], tiny_reranker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = copy(world.first)
    name_reranker(clone, tiny_reranker)
    ingest(world, 2)
    assert tiny.dvc(clone, "repro", "retrieval").returncode == 0
    metrics = read_json(clone / "data/metrics/retrieval.json")
    assert metrics["reranked"] and "rerank" not in metrics["settings"], "it was tried, and did not help"
    before = executed_stages()

    digest = adopt(clone)
    assert run(["release"]) == 0
    assert (reranker_of(1), reranker_of(2)) == (None, digest)
    first = asked(capsys)
    assert first["number"] == 2 and first["sources"][0]["score"] == pytest.approx(best_score(), abs=1e-5)

    ingest(world, 1)
    assert run(["refresh"]) == 0
    assert not (clone / "data/retrieval" / RERANKER).exists()
    assert reranker_of(3) is None and asked(capsys)["number"] == 3
    assert executed_stages()["models"] == before["models"]

    shutil.rmtree(clone / "data/models")  # a release stands on the store alone
    assert run(["rollback", "--to", "2", "--reason", "it was better"]) == 0
    assert {**asked(capsys), "number": 2} == first
    assert run(["doctor", "--strict"]) == 0


def asked(capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    assert run(["ask", QUESTION, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    return {key: found[key] for key in ("number", "answer", "sources", "release")}


def best_score() -> float:
    """What the reranker of the live release says of the best of all passages that it was shown."""
    assistant, _ = open_release(settings())
    chosen = assistant.release.retrieval
    text, vector, passages = assistant.index.legs(QUESTION, chosen["candidates"])
    first = [passages[key] for key, _ in fused(text, vector, chosen)[: chosen["rerank"]]]
    return sigmoid(max(assistant.index.read(QUESTION, first).values()))
