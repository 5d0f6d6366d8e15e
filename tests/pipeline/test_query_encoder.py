"""A release whose questions go through a tuned embedder, among others whose do not."""

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
from tasks.contrastive import Lesson, tune
from tasks.embedding import Embedder
from tasks.encoders import ENCODER, PINNED, pin
from tasks.manifest import load_release
from tasks.params import RetrieverParams
from tasks.params_files import load
from tasks.records import folder_digest, read_json, read_jsonl, write_json
from tasks.retriever import finish

Copy = Callable[[Path], Path]


pytestmark = pytest.mark.slow


def adopt(clone: Path) -> str:
    """What the stage leaves where a tuned embedder is better, which none can be on questions that the full text answers.
    Returns its digest."""
    tiny.change_params(
        clone, "retriever.yaml", {"sides": "query", "learning_rate": 0.01, "epochs": 3.0, "batch_size": 8, "threads": 1}
    )
    params, plain = load(RetrieverParams, clone / "params"), Embedder(clone / "data/models/embedder")
    records = [record | {"passages": []} for record in read_jsonl(clone / "data/questions/train.jsonl") if record["document"]]
    lessons = [Lesson(record["question"], record["answer"], ()) for record in records]
    fixed = plain.passages([lesson.passage for lesson in lessons])[:, None]
    encoder = clone / "data/retriever" / ENCODER
    tune(plain.folder, encoder, lessons, fixed, ("", ""), 64, params)
    finish(plain, encoder, records, "query")
    write_json(encoder.parent / PINNED, pin(encoder.parent, "query"))
    done = tiny.dvc(clone, "commit", "--force", "retriever")
    assert done.returncode == 0, done.stderr
    return folder_digest(encoder)


def ingest(world: World, day: int) -> None:
    corpus = world.folder / f"day-{day}"
    assert run(["ingest", "--documents", str(corpus / "documents"), "--questions", str(corpus / "questions.jsonl")]) == 0


def encoder_of(number: int) -> str | None:
    release = load_release(manifest_text(settings(), str(next(each.release for each in entries() if each.number == number))))
    return release.query_encoder.digest if release.query_encoder else None


def encoder_that_answers() -> Path:
    return open_release(settings())[0].index.embedder.folder


def test_a_tuned_query_encoder_is_released_kept_by_a_refresh_and_left_by_a_rollback(
    world: World, copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = copy(world.first)
    ingest(world, 2)
    assert tiny.dvc(clone, "repro", "chunks").returncode == 0
    tuned = adopt(clone)
    assert run(["release"]) == 0
    assert (encoder_of(1), encoder_of(2)) == (None, tuned)
    assert folder_digest(encoder_that_answers()) == tuned
    answer = asked(capsys)
    assert answer["number"] == 2

    ingest(world, 1)  # the corpus changes; the live encoder stays, though its stage is stale and its output is lost
    shutil.rmtree(clone / "data/retriever")
    before = executed_stages()["retriever"]
    assert run(["refresh"]) == 0
    assert executed_stages()["retriever"] == before and folder_digest(clone / "data/retriever" / ENCODER) == tuned
    assert encoder_of(3) == tuned

    assert run(["rollback", "--to", "1", "--reason", "the tuned one was worse"]) == 0
    assert folder_digest(encoder_that_answers()) == read_json(clone / "data/index/manifest.json")["embedder"]["digest"] != tuned
    assert asked(capsys)["number"] in (1, 4)


def asked(capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    assert run(["ask", "How many days of holiday do bakers have?", "--json"]) == 0
    return json.loads(capsys.readouterr().out)
