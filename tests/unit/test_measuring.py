"""What is measured outside the pipeline, with the tiny models: by whose rules, and by which questions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from test_index import Place, passage
from workspace import candidate_of, settings_of, write_workspace

from flows.candidate import Candidate
from flows.measuring import check_adapter, measure_into
from flows.settings import Settings
from tasks.answers import AnswerStore
from tasks.errors import InputError
from tasks.evaluate import Subject
from tasks.generation import decoding
from tasks.lineage import LINEAGE, lineage
from tasks.prompts import unpinned
from tasks.records import Record, read_json, read_jsonl, write_json, write_jsonl, write_text
from tasks.slices import pages_with_facts

ASKED: list[Record] = [
    {"id": f"q{number}", "question": asked, "answer": tiny.HOUSE.format(fact), "document": page, "fact": fact}
    for number, (page, _, asked, fact, _) in enumerate(tiny.rows()[:12:2])
]


@pytest.fixture
def world(tmp_path: Path, tiny_base: Path, tiny_embedder: Path) -> tuple[Settings, Candidate, Subject]:
    """A candidate whose test questions were asked, and a subject without an adapter that can answer them."""
    write_workspace(tmp_path)
    write_jsonl(tmp_path / "data/questions/test.jsonl", ASKED)
    write_jsonl(tmp_path / "data/evaluation/answers.jsonl", [{"question": record["id"], "arm": "rag"} for record in ASKED])
    (tmp_path / "place").mkdir()
    place = Place(tmp_path / "place", tiny_embedder)
    manifest, _ = place.build([passage(page, sentence) for page, _, _, _, sentence in tiny.rows()])
    prompt, shots = unpinned(read_json(tmp_path / "data/evaluation/prompt.json"))
    old = prompt.model_copy(update={"abstention_patterns": ["never said"], "shots": {"prompt": 0, "rag": 0}})
    settings = {"text_weight": 1.0, "k": 1, "candidates": 10, "mode": "text"}
    answers = AnswerStore(tmp_path / "answers.sqlite")
    subject = Subject(place.open(manifest), settings, tiny_base, None, old, shots, decoding(old), answers)
    return settings_of(tmp_path), candidate_of(tmp_path), subject


def with_patterns(candidate: Candidate, *patterns: str) -> Candidate:
    prompt: dict[str, Any] = dict(candidate.prompt) | {"abstention_patterns": list(patterns)}
    return replace(candidate, prompt=prompt)


def test_an_old_release_is_scored_by_the_rules_by_which_the_candidate_was(
    world: tuple[Settings, Candidate, Subject], tmp_path: Path
) -> None:
    settings, candidate, subject = world
    for name, pattern, abstained in (("all", "", 1.0), ("none", "written that down", 0.0)):
        measure_into(settings, subject, ("rag",), with_patterns(candidate, pattern), tmp_path / name, [])
        found = read_jsonl(tmp_path / name / "answers.jsonl")
        assert [record["scores"]["abstained"] for record in found] == [abstained] * len(ASKED)
    marks = {read_json(tmp_path / name / "report.json")["yardstick"] for name in ("all", "none")}
    assert len(marks) == 2


def test_what_the_subjects_adapter_learnt_is_left_out_and_named(
    world: tuple[Settings, Candidate, Subject], tmp_path: Path
) -> None:
    settings, candidate, subject = world
    learnt = [record | {"passages": []} for record in ASKED if record["document"] == ASKED[0]["document"]]
    write_json(tmp_path / "adapter" / LINEAGE, lineage(learnt))
    measure_into(settings, replace(subject, adapter=tmp_path / "adapter"), ("rag",), candidate, tmp_path / "out", [])
    questions = read_json(tmp_path / "out/report.json")["questions"]
    assert questions["left_out"] == [record["id"] for record in learnt]
    assert questions["count"] == len(ASKED) - len(learnt) > 0
    write_json(tmp_path / "adapter" / LINEAGE, lineage([record | {"passages": []} for record in ASKED]))
    with pytest.raises(InputError, match="none of the 6 test questions can judge the adapter"):
        measure_into(settings, replace(subject, adapter=tmp_path / "adapter"), ("rag",), candidate, tmp_path / "none", [])


def test_an_adapter_that_was_trained_on_a_page_of_the_test_questions_is_refused(
    world: tuple[Settings, Candidate, Subject], tmp_path: Path
) -> None:
    adapter = tmp_path / "data/adapter"
    check_adapter(adapter, ASKED)
    other = {"question": "Another one?", "document": ASKED[0]["document"], "passages": []}
    write_json(adapter / LINEAGE, lineage([other]))
    with pytest.raises(InputError, match=r"was trained on 2 of the test questions or on their pages \(q0, q1, \.\.\.\)"):
        check_adapter(adapter, ASKED)


def test_all_passages_of_an_index_are_read_to_count_the_pages_that_state_a_fact(
    world: tuple[Settings, Candidate, Subject],
) -> None:
    found = list(world[2].searcher.passages())
    assert sorted(record["text"] for record in found) == sorted(sentence for *_, sentence in tiny.rows())
    assert set(pages_with_facts(found, ASKED).values()) == {1}


def test_metrics_and_rules_are_measured_with_the_subjects_embedder_and_the_projects_functions(
    world: tuple[Settings, Candidate, Subject], tmp_path: Path
) -> None:
    settings, candidate, subject = world
    write_text(
        tmp_path / "checks/words.py", "def says_something(question, answer, reference, passages):\n    return bool(passages)\n"
    )
    rules = {"something": {"function": "checks.words.says_something"}}
    tiny.change_params(tmp_path, "evaluate.yaml", {"metrics": ["semantic_similarity", "groundedness"], "rules": rules})
    measure_into(settings, subject, ("rag", "prompt"), candidate, tmp_path / "out", [])
    arms = read_json(tmp_path / "out/report.json")["arms"]
    assert arms["rag"]["metrics"]["rule something"]["mean"] == 1.0
    assert arms["prompt"]["metrics"]["rule something"]["mean"] == 0.0
    assert 0 <= arms["rag"]["metrics"]["semantic_similarity"]["mean"] <= 1
    found = read_jsonl(tmp_path / "out/answers.jsonl")
    assert {name for record in found for name in record["metrics"]} == {"semantic_similarity", "groundedness", "rule something"}
    assert all("fact on one page" in record["slices"] for record in found)
