from pathlib import Path

import pytest
import tiny
from workspace import (
    candidate_of,
    change,
    judged,
    write_adapter,
    write_documents,
    write_evaluation,
    write_workspace,
)

from flows import promotion, showing
from flows.cli import run
from flows.comparing import answer_changes, diff, document_changes, metric_changes, question_changes
from flows.settings import Settings
from tasks.records import Record, read_jsonl, write_json, write_jsonl


def test_a_page_that_only_got_another_name_was_renamed() -> None:
    old = {"a": "1", "b": "2", "c": "3"}
    new = {"a": "1", "beta": "2", "c": "4", "d": "5"}
    assert document_changes(old, new) == {"changed": ["c"], "added": ["d"], "removed": [], "renamed": {"b": "beta"}}


def test_a_copy_of_a_page_that_stays_was_added() -> None:
    assert document_changes({"a": "1"}, {"a": "1", "copy": "1"}) == {
        "changed": [],
        "added": ["copy"],
        "removed": [],
        "renamed": {},
    }


def test_two_equal_pages_that_merge_are_one_renamed_and_one_removed() -> None:
    found = document_changes({"a": "1", "b": "1"}, {"c": "1"})
    assert found["added"] == [] and len(found["renamed"]) == 1 and len(found["removed"]) == 1
    assert set(found["renamed"]) | set(found["removed"]) == {"a", "b"}


def test_a_page_that_split_into_two_equal_ones_accounts_for_both() -> None:
    found = document_changes({"a": "1"}, {"b": "1", "c": "1"})
    assert sorted([*found["renamed"].values(), *found["added"]]) == ["b", "c"]


def test_nothing_changed_is_nothing() -> None:
    assert document_changes({"a": "1"}, {"a": "1"}) == {"changed": [], "added": [], "removed": [], "renamed": {}}


def test_only_metrics_that_both_have_are_compared_each_with_its_interval() -> None:
    before, after = {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 9}, {"mean": 0.61239, "low": 0.5, "high": 0.7, "n": 9}
    old = {"arms": {"rag": {"metrics": {"fact": before, "old": before}}, "lora": {"metrics": {}}}}
    new = {"arms": {"rag": {"metrics": {"fact": after, "new": after}}}}
    assert metric_changes(old, new) == {"rag": {"fact": {"from": before, "to": after}}}


def answered(text: str, primary: float) -> Record:
    return {"text": "When?", "answer": text, "scores": {"primary": primary}}


def test_answers_in_other_words_are_told_what_lost_most_first() -> None:
    old = {"a": answered("at 5", 1.0), "b": answered("at 6", 0.0), "c": answered("at 7", 1.0), "d": answered("x", 0.5)}
    new = {"a": answered("at 9", 0.0), "b": answered("at 8", 1.0), "c": answered("at 7", 1.0), "e": answered("y", 0.5)}
    found = answer_changes(old, new)
    assert (found["asked_of_both"], found["better"], found["worse"]) == (3, 1, 1)
    assert [(each["from"], each["to"], each["score"]) for each in found["changed"]] == [
        ("at 5", "at 9", [1.0, 0.0]), ("at 6", "at 8", [0.0, 1.0]),
    ]  # fmt: skip


@pytest.fixture
def two(tmp_path: Path) -> Settings:
    """Release 2 has another page, other weights that say what they learnt, and other answers."""
    root = tmp_path / "clone"
    root.mkdir()
    settings = write_workspace(root, fact=0.5)
    decide(settings)
    write_documents(root, {"page-1": "a", "page-2": "\x1b[2Jb", "page-9": "new"} | {f"p{number}": "x" for number in range(12)})
    write_adapter(root, 2.0)
    write_json(root / "data/adapter/lineage.json", {"questions": ["k1", "k2"], "documents": ["page-1"], "passages": []})
    change(root / "data/index/manifest.json", digest="f" * 64)
    write_evaluation(root, fact=1.0)
    records = read_jsonl(root / "data/evaluation/answers.jsonl")
    write_jsonl(root / "data/evaluation/answers.jsonl", [each | {"answer": f"now {each['answer']}"} for each in records])
    decide(settings)
    return settings


def decide(settings: Settings) -> None:
    judgement = judged(settings)
    assert judgement.verdict.accepted, judgement.verdict.reasons
    evidence = promotion.seal(settings, candidate_of(settings.root), judgement)
    promotion.commit(settings, judgement, len(judgement.entries) + 1, evidence, {})


def test_two_releases_differ_in_pages_passages_weights_figures_and_answers(
    two: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    found = diff(two, "1", "2")
    assert len(found["documents"]["added"]) == 13 and found["documents"]["removed"] == ["page-3", "page-4"]
    assert found["passages"] == {"from": 3, "to": 3, "added": None, "removed": None}  # there is no table here
    assert (found["adapter"]["from"]["came_with"], found["adapter"]["from"]["questions"]) == (1, None)
    assert (found["adapter"]["to"]["came_with"], found["adapter"]["to"]["questions"], found["adapter"]["to"]["documents"]) == (
        2,
        2,
        1,
    )
    assert found["questions"] == {"same": True, "from": 12, "to": 12}
    primary = found["metrics"]["rag+lora"]["primary"]
    assert (primary["from"]["mean"], primary["to"]["mean"]) == (0.5, 1.0) and primary["to"]["low"] <= 1.0
    assert (found["answers"]["asked_of_both"], len(found["answers"]["changed"]), found["answers"]["better"]) == (12, 12, 12)
    with tiny.inside(two.root):
        assert run(["diff", "1", "2"]) == 0
        text = capsys.readouterr().out
        assert run(["diff", "1", "9"]) == run(["diff", "one", "2"]) == 2
    assert "13 added: p0, p1, p10, p11, p2, p3, p4, p5, p6, p7 and 3 more" in text
    assert "which ones changed cannot be told" in text
    assert (
        "adapter: of release 1, which does not say what it was taught -> of release 2, taught 2 questions about 1 pages" in text
    )
    assert "rag+lora (served by 1 and 2):\n    primary 0.500 (0.500 to 0.500) -> 1.000 (1.000 to 1.000)" in text
    assert "answers: 12 of 12 differ, 12 score more, 0 less" in text and "and 2 more: --json" in text
    assert "    0.50  x q0\n      1.00  now x q0" in text


def test_a_release_does_not_differ_from_itself_and_other_questions_are_said_to_be_others(two: Settings) -> None:
    same = diff(two, "2", "2")
    assert (same["content"], same["params"], same["answers"]["changed"]) == ([], {}, [])
    assert showing.diff(same).splitlines()[1:3] == [
        "  adapter: the same, of release 2, taught 2 questions about 1 pages", "  lora:",
    ]  # fmt: skip
    other = question_changes({"questions": {"digest": "a", "count": 3}}, {"questions": {"digest": "b", "count": 4}})
    assert showing.metric_lines({"questions": other, "metrics": {}}) == [
        "measured on other questions (3 -> 4): figures do not compare"
    ]
