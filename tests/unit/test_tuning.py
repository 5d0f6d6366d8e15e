"""What `tandem plan --tune` measures and proposes. No test knows which backend is the faster one here."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from workspace import settings_of

from flows import tuning
from flows.cli import run
from flows.tuning import show, tune
from tasks.errors import InputError
from tasks.params import BACKENDS
from tasks.records import folder_digests, write_jsonl
from tasks.tuning import BUDGETS, propose, stand_ins, whole_pages


@pytest.fixture
def made(tiny_base: Path, tiny_embedder: Path, tmp_path: Path) -> Path:
    return tiny.make_clone(tmp_path / "clone", tiny_base, tiny_embedder)


@pytest.fixture
def clone(made: Path) -> Iterator[Path]:
    with tiny.inside(made):
        yield made


@pytest.fixture(autouse=True)
def _without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is measured in tests/stack/test_openvino.py, where it is installed."""
    monkeypatch.setitem(sys.modules, "openvino", None)


def write_corpus(clone: Path) -> None:
    rows = [{"document": page, "embedded": sentence} for page, _, _, _, sentence in tiny.rows()]
    asked = [{"id": str(number), **record} for number, record in enumerate(tiny.questions())]
    for path, records in (("chunks/passages.jsonl", rows), ("questions/validation.jsonl", asked)):
        (clone / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(clone / "data" / path, records)


def record(backend: str, budget: int, rate: float, ndcg: float | None = None, cosine: float = 1.0) -> dict[str, Any]:
    return {"backend": backend, "batch_tokens": budget, "passages_per_second": rate, "cosine": cosine, "ndcg@10": ndcg}


def test_every_backend_is_measured_with_every_budget_and_judged_by_the_questions(clone: Path) -> None:
    write_corpus(clone)
    before = {path: folder_digests(clone / path) for path in ("params", "data")}
    found = tune(settings_of(clone), seconds=0.1)
    cases = {(each["backend"], each["batch_tokens"]) for each in found["measured"]}
    assert {backend for backend, _ in cases} == set(BACKENDS) - {"openvino-int8"} and set(found["skipped"]) == {"openvino-int8"}
    assert {budget for _, budget in cases} >= set(BUDGETS)
    assert all(each["passages_per_second"] > 0 and each["cosine"] > 0.99 for each in found["measured"])
    assert all(0 < each["ndcg@10"] <= 1 for each in found["measured"])
    assert found["corpus"] and (found["proposed"]["backend"], found["proposed"]["batch_tokens"]) in cases
    assert {path: folder_digests(clone / path) for path in before} == before
    lines = show(found).splitlines()
    assert len(lines) >= len(cases) + 2 and "made-up" not in show(found)


def test_before_there_is_a_corpus_made_up_texts_stand_in_and_a_program_reads_json(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(clone / "data", ignore_errors=True)
    monkeypatch.setattr(tuning, "SECONDS", 0.1)
    assert run(["plan", "--tune", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert not found["corpus"] and {each["ndcg@10"] for each in found["measured"]} == {None}
    assert "made-up texts" in show(found)


def test_a_backend_whose_package_is_missing_is_left_out_and_said(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match="pip install onnxruntime, or set backend: torch"):
        tune(settings_of(clone), seconds=0.1)  # nothing to compare with
    tiny.change_params(clone, "models.yaml", {"embedder": {"backend": "torch"}})
    found = tune(settings_of(clone), seconds=0.1)
    assert {each["backend"] for each in found["measured"]} == {"torch", "torch-bf16"}
    assert "onnx-int8: not measured" in show(found) and "pip install onnxruntime" in show(found)


def test_the_fastest_that_finds_as_much_is_proposed() -> None:
    measured = [record("torch", 512, 100, 0.9), record("torch-bf16", 512, 190, 0.899), record("onnx-int8", 512, 300, 0.89)]
    assert propose(measured, "torch", 512)["backend"] == "torch-bf16"  # the third loses 1.1 %
    assert propose([*measured, record("onnx-int8", 4096, 310, 0.8911)], "torch", 512)["batch_tokens"] == 4096


def test_without_questions_the_vectors_have_to_be_near_to_those_of_torch() -> None:
    measured = [
        record("torch", 512, 100),
        record("torch-bf16", 512, 190, cosine=0.9999),
        record("onnx-int8", 512, 300, cosine=0.97),
    ]
    assert propose(measured, "torch", 512)["backend"] == "torch-bf16"


def test_what_is_hardly_faster_is_not_worth_a_change_unless_what_is_set_finds_less() -> None:
    measured = [record("torch", 512, 100, 0.9), record("torch", 4096, 109, 0.9), record("onnx-int8", 512, 105, 0.7)]
    assert propose(measured, "torch", 512) == measured[0]
    assert propose(measured, "onnx-int8", 512) == measured[1]
    assert propose(measured, "torch", 4096) == measured[1]


def test_a_sample_is_made_of_whole_pages() -> None:
    passages = [{"document": f"page-{number % 7}", "embedded": str(number)} for number in range(70)]
    sample = whole_pages(passages, 15)
    assert len(sample) == 20 and {
        sum(each["document"] == page for each in sample) for page in {s["document"] for s in sample}
    } == {10}
    assert whole_pages(passages, 1000) == whole_pages(passages, 70) and len(whole_pages(passages, 1000)) == 70
    assert len({each["embedded"] for each in stand_ins()}) > 1000
