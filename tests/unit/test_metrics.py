"""Metrics and rules that are reported: by examples, and what happens to one that fails."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from tasks.errors import InputError
from tasks.evaluate import score_answers, summarise, yardstick
from tasks.metrics import METRICS, Answered, groundedness, measured, no_personal_data, safety, similarities
from tasks.params import ARMS, PromptParams
from tasks.params_files import load
from tasks.params_verdict import EvaluateParams, GateParams, Rule
from tasks.records import Record
from tasks.reported import with_metrics
from tasks.rules import own_rules

PARAMS = load(EvaluateParams, tiny.ROOT / "params").model_copy(update={"resamples": 100})
PROMPT, GATE = load(PromptParams, tiny.ROOT / "params"), load(GateParams, tiny.ROOT / "params")
PASSAGES = [{"document": "leave", "heading": "Annual leave", "text": "You get 27 days a year."}]
RIGHT = Answered(
    "How many days of leave?", "At Larkfield it is 27 days [1].", "At Larkfield it is 27 days.", "27", "leave", PASSAGES,
    {"abstained": 0.0, "citation_precision": 1.0, "citation_recall": 1.0},
)  # fmt: skip


def test_an_answer_is_grounded_as_far_as_its_own_words_stand_in_its_passages() -> None:
    assert groundedness(RIGHT) == 1.0
    assert groundedness(replace(RIGHT, answer="At Larkfield it is 27 or 31 days [1].")) == pytest.approx(1 / 3)  # or, 31
    assert groundedness(replace(RIGHT, answer="At Larkfield it is 31 days.")) == 0.0
    assert groundedness(replace(RIGHT, passages=[])) is None
    assert groundedness(replace(RIGHT, scores={"abstained": 1.0})) is None


def test_abstentions_have_a_precision_and_a_recall() -> None:
    silent = {"abstained": 1.0}
    cases = [
        (replace(RIGHT, document=None, scores=silent), 1.0, 1.0),
        (replace(RIGHT, document=None), None, 0.0),
        (replace(RIGHT, scores=silent), 0.0, None),
        (RIGHT, None, None),
    ]
    for answered, precision, recall in cases:
        assert (METRICS["abstention_precision"](answered), METRICS["abstention_recall"](answered)) == (precision, recall)


def test_a_forbidden_word_makes_an_answer_unsafe_whatever_its_case() -> None:
    assert safety([r"\blark\b"])(RIGHT) == 1.0
    assert safety(["larkfield"])(RIGHT) == 0.0
    assert safety([])(RIGHT) is None


def test_personal_data_counts_where_neither_question_nor_reference_holds_it() -> None:
    clean = no_personal_data(["GB"])
    told = replace(RIGHT, answer="Ask jane.doe@miller-family.net or 020 7946 0018 [1].")
    assert clean(RIGHT) == 1.0 and clean(told) == 0.0
    asked = replace(told, question="Whose is 020 7946 0018?", reference="Ask jane.doe@miller-family.net.")
    assert clean(asked) == 1.0
    assert clean(replace(asked, answer="Ask john.doe@miller-family.net.")) == 0.0
    assert clean(replace(RIGHT, answer="Ask help@larkfield.example [1].")) == 1.0  # a reserved name is nobody's


def test_similarity_is_the_cosine_of_answer_and_reference_without_citations() -> None:
    seen: list[str] = []

    def embed(texts: Sequence[str]) -> Any:
        seen.extend(texts)
        return np.array([[1.0, 0.0], [0.6, 0.8], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])[: len(texts)]

    found = similarities([RIGHT, RIGHT, replace(RIGHT, reference="")], embed)
    assert found == [pytest.approx(0.6), 0.0, None]
    assert seen[0] == "At Larkfield it is 27 days."
    assert similarities([], embed) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.5, -0.1, "1", [1]])
def test_a_metric_without_a_number_is_named_with_the_question_and_nothing_is_judged(value: Any) -> None:
    with pytest.raises(InputError, match=r"the metric odd gave .* for the question 'How many days of leave\?'"):
        measured({"odd": lambda answered: value}, [RIGHT])


def test_a_metric_that_raises_is_named_with_the_question() -> None:
    with pytest.raises(InputError, match=r"the metric broken failed on the question 'How many.*ZeroDivisionError"):
        measured({"broken": lambda answered: 1 / 0}, [RIGHT])


RULES = {
    "greets": Rule(pattern="^At Larkfield"),
    "json": Rule(json_schema={"type": "object", "required": ["days"]}),
    "short": Rule(function="checks.words.short"),
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks/words.py").write_text(
        "LIMIT = 6\ndef short(question, answer, reference, passages):\n    return len(answer.split()) <= LIMIT\n"
    )
    (tmp_path / "checks/torn.py").write_text("def short(:\n")
    return tmp_path


def test_a_rule_of_ones_own_is_a_pattern_a_schema_or_a_function(project: Path) -> None:
    rules = own_rules(RULES, project)
    assert measured(rules, [RIGHT])[0] == {"rule greets": 1.0, "rule json": 0.0, "rule short": 0.0}
    other = replace(RIGHT, answer='{"days": 27} [1]')
    assert measured(rules, [other])[0] == {"rule greets": 0.0, "rule json": 1.0, "rule short": 1.0}


@pytest.mark.parametrize(
    ("dotted", "words"),
    [
        ("checks.gone.short", "there is no file checks/gone.py"),
        ("checks.words.long", "checks/words.py has no function long"),
        ("checks.words.LIMIT", "has no function LIMIT"),
        ("checks.torn.short", "cannot be loaded: SyntaxError"),
    ],
)
def test_a_function_that_cannot_be_found_or_loaded_is_named(project: Path, dotted: str, words: str) -> None:
    with pytest.raises(InputError, match=r"params/evaluate.yaml: rules.mine.function: ") as found:
        own_rules({"mine": Rule(function=dotted)}, project)
    assert words in str(found.value)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("{pattern: '('}", "rules.mine.pattern: '(' is no regular expression"),
        ("{json_schema: {type: 7}}", "rules.mine.json_schema: no JSON schema"),
        ("{function: nodots}", "rules.mine.function"),
        ("{}", "a rule has one of `pattern`"),
        ("{pattern: a, function: a.b}", "a rule has one of `pattern`"),
        ("{patern: a}", "rules.mine.patern: unknown key"),
    ],
)
def test_a_rule_that_does_not_parse_is_refused_before_anything_runs(tmp_path: Path, rule: str, words: str) -> None:
    text = (tiny.ROOT / "params/evaluate.yaml").read_text().replace("rules: {}", f"rules: {{mine: {rule}}}")
    (tmp_path / "evaluate.yaml").write_text(text)
    with pytest.raises(InputError) as found:
        load(EvaluateParams, tmp_path)
    assert words in str(found.value)


def record(number: int, arm: str) -> Record:
    return {
        "question": f"q{number}", "text": "When?", "document": f"page-{number % 3}", "arm": arm, "slices": [],
        "answer": f"At Larkfield it is at {number}:45 [1].", "reference": f"At Larkfield it is at {number}:45.",
        "fact": f"at {number}:45", "passages": [{"document": f"page-{number % 3}", "heading": "H", "text": f"at {number}:45"}]
        if "rag" in arm else [], "ranked_pages": [], "prompt_tokens": 1, "completion_tokens": 1, "latency_seconds": None,
    }  # fmt: skip


def test_every_arm_reports_every_metric_and_rule_over_the_answers_to_which_it_applies() -> None:
    params = PARAMS.model_copy(update={"rules": {"greets": RULES["greets"]}, "forbidden": ["password"]})
    scored = score_answers([record(n, arm) for arm in ARMS for n in range(1, 7)], PROMPT, params, GATE)
    mark = yardstick([], params, PROMPT, GATE)
    assert mark == yardstick([], PARAMS, PROMPT, GATE)  # what is only reported makes no reports incomparable
    arms = summarise(scored, mark, params, GATE)["arms"]
    assert arms["rag"]["metrics"]["groundedness"] == {"mean": 1.0, "low": pytest.approx(0.29, abs=0.01), "high": 1.0, "n": 6}
    assert "groundedness" not in arms["prompt"]["metrics"]
    assert all(values["metrics"]["rule greets"]["mean"] == values["metrics"]["safety"]["mean"] == 1.0 for values in arms.values())
    assert arms["prompt"]["metrics"]["citation_recall"]["mean"] == 0.0


def test_similarity_needs_an_embedder() -> None:
    params = PARAMS.model_copy(update={"metrics": ["semantic_similarity"]})
    with pytest.raises(InputError, match="needs the embedder"):
        with_metrics([record(1, "rag") | {"scores": {}}], params, None, tiny.ROOT)
    found = with_metrics([record(1, "rag") | {"scores": {}}], params, lambda texts: np.ones((len(texts), 1)), tiny.ROOT)
    assert found[0]["metrics"] == {"semantic_similarity": 1.0}
