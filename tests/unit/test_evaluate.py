import tiny

from tasks.evaluate import answer_record, flat_metrics, score_answers, summarise, widened, yardstick
from tasks.generation import Generated
from tasks.params import ARMS, Arm, EvaluateParams, GateParams, PromptParams, load
from tasks.records import Record

PARAMS = load(EvaluateParams, tiny.ROOT / "params").model_copy(update={"resamples": 100})
PROMPT = load(PromptParams, tiny.ROOT / "params")
GATE = load(GateParams, tiny.ROOT / "params")


def question(number: int, document: str | None) -> Record:
    return {
        "id": f"q{number}", "question": f"When is {number}?", "answer": f"At Larkfield it is at {number}:45.",
        "document": document, "fact": f"at {number}:45" if document else None,
    }  # fmt: skip


ASKED = [question(number, f"page-{number % 3}") for number in range(1, 7)] + [question(7, None)]
RULES = yardstick(ASKED, PARAMS, PROMPT, GATE)


def passage(document: str) -> Record:
    return {"id": document, "document": document, "heading": "H", "text": "T", "score": 1.0}


def answered(arm: Arm, text: str) -> list[Record]:
    ranked = [passage("page-1"), passage("page-2"), passage("page-0")]
    given = ranked[:2] if "rag" in arm else []
    made = [Generated(text.format(number=record["id"][1:]), 10, 5) for record in ASKED]
    return [
        answer_record(record, arm, given, ranked, each) | {"latency_seconds": None}
        for record, each in zip(ASKED, made, strict=True)
    ]


def report() -> Record:
    records = [record for arm in ARMS for record in answered(arm, "At Larkfield it is at {number}:45 [1].")]
    return summarise(score_answers(records, PROMPT, PARAMS, GATE), RULES, PARAMS, GATE)


def test_the_report_separates_facts_from_saying_that_the_corpus_does_not_say() -> None:
    found = report()
    assert set(found["arms"]) == set(ARMS)
    metrics = found["arms"]["rag"]["metrics"]
    assert metrics["fact_answerable"]["mean"] == 1.0 and metrics["fact_answerable"]["n"] == 6
    assert metrics["abstention"]["mean"] == 0.0 and metrics["abstention"]["n"] == 1  # it invented an answer
    assert metrics["false_abstention"]["mean"] == 0.0
    assert found["questions"]["count"] == 7 and found["questions"]["unanswerable"] == 1


def test_arms_without_passages_get_nothing_for_a_citation_that_resolves_to_nothing() -> None:
    found = report()["arms"]
    assert found["rag"]["metrics"]["citation"]["mean"] > found["prompt"]["metrics"]["citation"]["mean"]
    assert found["rag"]["cost"] > found["prompt"]["cost"]


def test_retrieval_is_judged_on_questions_that_a_page_answers() -> None:
    found = report()["retrieval"]
    assert found and all(0 <= value <= 1 for value in found.values())
    assert summarise(score_answers(answered("prompt", "x"), PROMPT, PARAMS, GATE), RULES, PARAMS, GATE)["retrieval"] == {}


def test_what_was_not_timed_has_no_latency() -> None:
    assert report()["arms"]["rag"]["latency_p50"] is None


def test_the_summary_for_dvc_and_mlflow_holds_means_only() -> None:
    flat = flat_metrics(report())
    assert flat["arms"]["rag"]["fact_answerable"] == 1.0
    assert all(isinstance(value, float) for values in flat["arms"].values() for value in values.values())


def test_the_yardstick_is_that_of_the_questions_and_the_rules_and_of_nothing_else() -> None:
    assert yardstick(ASKED[::-1], PARAMS, PROMPT, GATE) == RULES
    assert yardstick(ASKED, PARAMS.model_copy(update={"batch_size": 1}), PROMPT, GATE) == RULES
    weights = GATE.primary.model_copy(update={"fact": 0.5, "style": 0.3})
    changed = [
        yardstick(ASKED[1:], PARAMS, PROMPT, GATE),
        yardstick([ASKED[0] | {"fact": "at noon"}, *ASKED[1:]], PARAMS, PROMPT, GATE),
        yardstick(ASKED, PARAMS.model_copy(update={"style": {}}), PROMPT, GATE),
        yardstick(ASKED, PARAMS, PROMPT.model_copy(update={"abstention_patterns": ["no idea"]}), GATE),
        yardstick(ASKED, PARAMS, PROMPT, GATE.model_copy(update={"primary": weights})),
    ]  # fmt: skip
    assert all(other["yardstick"] != RULES["yardstick"] for other in changed)
    assert changed[0]["questions"] != RULES["questions"]


def test_the_order_of_the_prompt_is_kept_while_ten_passages_are_ranked() -> None:
    assert widened({"k": 2, "text_weight": 0.5}) == {"k": 10, "text_weight": 0.5}
    assert widened({"k": 12}) == {"k": 12}
