"""The report as a page: what it says, that texts stay texts, and that nothing in it reaches for the network."""

import re
from html.parser import HTMLParser

import pytest
from judging import HOSTILE, judged

from tasks.card import card
from tasks.page import page, visible

TRAINING = {
    "curve": [{"step": 0, "validation_loss": 2.0}, {"step": 4, "validation_loss": 1.0, "train_loss": 1.5}],
    "validation_loss_first": 2.0,
    "validation_loss_best": 1.0,
    "kept_step": 4,
    "steps": 4,
}


class Elements(HTMLParser):
    """Every element and attribute, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def said(text: str) -> str:
    return re.sub(r"\s+", " ", Elements(text).text)


def test_the_page_opens_with_the_verdict_in_two_sentences() -> None:
    text = said(page(judged()))
    assert (
        "Release 2 was promoted: questions are answered by the trained model with the pages that search finds (rag+lora), which "
        "gets 8 of 8 test questions right. Against release 1 it scores 0.20 higher (between unlimited and 0.30 higher); as the "
        "pages had changed, it had to be no more than 0.10 lower."
    ) in text
    assert "21 November 2026, 10:37 UTC" in text


def test_a_first_release_is_compared_with_its_own_arms() -> None:
    assert "It scores 0.60 of 1; of the 3 other ways that were tried, rag comes next with 0.40." in said(
        page(judged(champion=False))
    )


def test_a_refusal_says_what_stays_and_what_was_short() -> None:
    text = said(page(judged(accepted=False)))
    assert "Candidate 111111111111 was refused; release 1 stays live." in text
    assert "None of its 4 ways to answer is good enough; even the best, rag+lora, falls short: primary 0.450 is below" in text


def test_a_person_who_said_no_is_named_before_the_gate() -> None:
    why = "A person did not approve it: too early"
    assert "The gate had accepted it, but a person did not approve it: too early." in said(
        page(judged(outcome="refused", why=why))
    )


def test_every_question_stands_with_the_answers_of_all_arms_and_of_the_champion() -> None:
    text = page(judged(count=8))
    assert text.count('<tbody class="question"') == 8
    assert 'data-right="11111" data-slices="0" data-change=""' in text  # q0: four arms and the champion
    assert 'data-right="00010" data-slices="1" data-change="lost"' in text  # q1
    assert said(text).count("Passages given to rag, rag+lora, release 1 (rag)") == 8
    assert "cited by rag, rag+lora, release 1 (rag)" in said(text)


def test_a_passage_is_there_once_however_many_were_given_it() -> None:
    text = page(judged(count=8))
    assert text.count("the other one 3") == 1
    assert len(re.findall(r'id="t\d+"', text)) == 9  # of question n: passages n and n + 1


def test_what_changed_and_what_was_measured_is_told() -> None:
    text = said(page(judged(training=TRAINING)))
    for sentence in (
        "1 right before, wrong now", "1 wrong before, right now", "3 → 4 documents", "1: page-1", "1: a → b", "8 → 16",
        "On validation examples the loss went from 2.000 to 1.000; step 4 was kept.", "recall@5 0.500 recall@10 1.000",
        "weighs fact 60%, style 40%", "differences of 0.08 or more; the margin needs about 700 questions",
    ):  # fmt: skip
        assert sentence in text, sentence


def test_what_a_report_does_not_have_is_left_out() -> None:
    bare = judged(champion=False, retrieval=None)
    del bare.report["slices"], bare.report["retrieval"], bare.verdict["notes"]
    for record in bare.answers:
        del record["slices"], record["passages"], record["reference"]
    text = page(bare)
    for absent in ("<h2>Slices", "<h2>Retrieval", "<h2>Training", "What changed since", "<h2>The passages"):
        assert absent not in text, absent
    assert text.count('<tbody class="question"') == 8


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_of_the_corpus_stays_a_text(text: str) -> None:
    """The same elements and attributes as with harmless texts, whatever stands in question, answer, passage and heading."""
    plain, hostile = (Elements(page(judged(texts=(words,)))) for words in ("plain", text))
    assert hostile.tags == plain.tags
    assert [name for name, _ in hostile.attributes] == [name for name, _ in plain.attributes]
    assert visible(text) in hostile.text


def test_names_of_pages_slices_and_params_stay_texts_too() -> None:
    case = judged()
    for record in case.answers:
        record["document"], record["slices"] = HOSTILE[2], [HOSTILE[1]]
        for passage in record["passages"]:
            passage["document"], passage["heading"] = HOSTILE[0], HOSTILE[3]
    case.report["slices"] = {HOSTILE[1]: case.report["slices"]["folder 1"]}
    case.verdict["reasons"], case.verdict["notes"] = [HOSTILE[0]], [HOSTILE[4]]
    case.changes["documents"]["changed"] = [HOSTILE[7]]
    found = Elements(page(case))
    assert found.tags.count("script") == 1 and not {"iframe", "a onclick", "svg"} & set(found.tags)
    assert not [name for name, _ in found.attributes if name.startswith("on")]


def test_nothing_in_the_page_leads_out_of_it() -> None:
    text = page(judged(texts=HOSTILE, training=TRAINING))
    found = Elements(text)
    links = [value for name, value in found.attributes if name in ("href", "src", "action")]
    assert links and all(value.startswith(("#p", "data:image/svg+xml;base64,")) for value in links)
    policies = [value for name, value in found.attributes if value.startswith("default-src")]
    assert len(policies) == 1 and policies[0].startswith("default-src 'none'; script-src 'sha256-")


def test_characters_that_reorder_or_hide_others_are_shown_by_number() -> None:
    assert visible("a\u202eb\u2066c\x00d\ud800") == "a⟨U+202E⟩b⟨U+2066⟩c⟨U+0000⟩d⟨U+D800⟩"
    assert visible("שלום\u200f\tnaïve\n") == "שלום\u200f\tnaïve\n"
    assert "\u202e" not in page(judged(texts=HOSTILE))


def test_five_hundred_questions_with_long_passages_fit_into_five_megabytes() -> None:
    case = judged(count=500, texts=("a sentence of an answer with a fact in it. " * 4,))
    for record in (*case.answers, *case.champion_answers):
        for passage in record["passages"]:
            passage["text"] = f"{passage['id']} {'A sentence of a page that was found by search. ' * 25}"
    text = page(case)
    assert len(re.findall(r'id="t\d+"', text)) == 501
    assert len(text.encode()) < 5_000_000


def test_the_same_judgement_is_the_same_page() -> None:
    assert page(judged(training=TRAINING)) == page(judged(training=TRAINING))


def test_a_broken_evaluation_is_refused_with_a_page_and_a_card_not_with_a_crash() -> None:
    """What the gate refuses: an arm that is missing, scores that are none, metrics that are NaN."""
    case = judged(accepted=False)
    del case.report["arms"]["rag+lora"]
    case.report["arms"]["rag"] = {"metrics": {}, "cost": float("nan")}
    case.report["arms"]["lora"]["metrics"]["primary"] = {"mean": float("nan"), "low": None, "high": 1.0}
    case.report["slices"] = {"a": {"lora": {"primary": {"mean": float("nan")}}}}
    for record, score in zip(case.answers, ("high", None, float("nan"), 1), strict=False):
        record["scores"] = {"fact": score}
    case.verdict.update(arms=[], reasons=["Candidate: arm rag+lora is missing."], comparisons=[])
    text = said(page(case))
    assert "Candidate 111111111111 was refused; release 1 stays live. Candidate: arm rag+lora is missing." in text
    assert "| rag | – | – | – |" in card(case)


def test_a_verdict_that_cannot_decide_says_what_would_settle_it() -> None:
    case = judged(accepted=False)
    case.verdict.update(decision="cannot decide", reasons=["Cannot decide: 8 questions are too few, about 70 would be needed."])
    text = said(page(case))
    assert "111111111111 was not promoted, as these questions cannot tell whether it may be; release 1 stays live." in text
    assert "8 questions are too few, about 70 would be needed." in text
    assert "<title>Candidate 111111111111: cannot decide</title>" in page(case)


def test_what_a_deeper_verdict_holds_is_shown() -> None:
    """Rules of the house, comparisons in words, slices against the champion, the count of looks: each where it is there."""
    case = judged()
    case.report["arms"]["rag"]["metrics"]["no_dates"] = {"mean": 0.25, "low": 0.125, "high": 0.5}
    for record in case.answers:
        record["metrics"] = {"no_dates": 1.0}
    case.verdict["comparisons"][0]["says"] = "rag+lora is clearly better."
    slices = {"name": "folder 1", "questions": 4, "difference": -0.5, "adjusted": 0.04, "lost": True}
    case.verdict.update(champion_slices=[slices], look={"number": 3, "alpha": 0.0125})
    text = said(page(case))
    for sentence in (
        "no dates – 0.25 0.12 to 0.50 – –", "rag+lora is clearly better.", "folder 1 4 0.50 lower 0.040 yes",
        "number 3, with an alpha of 0.013",
    ):  # fmt: skip
        assert sentence in text, sentence
    assert text.count("no dates") == 9  # of the arms, and of each of eight questions


def test_what_a_thousand_answers_cost_is_told_with_how_it_is_known_and_drawn_where_there_are_prices() -> None:
    case = judged()
    for arm in case.report["arms"].values():
        arm.update(latency_p50=0.5, timed=12, thousand={"prompt_tokens": 9000.0, "estimated_energy_kwh": 0.0125})
    text = page(case)
    assert "tokens read 9,000 9,000 9,000 9,000 counted" in said(text)
    assert "seconds an answer, median 0.50 0.50 0.50 0.50 measured on 12 answers" in said(text)
    assert "energy, Wh 12.5 12.5 12.5 12.5 estimate" in said(text) and "money" not in said(text)
    assert "Score against money" not in text and "Score against cost per answer" in text
    for arm in case.report["arms"].values():
        arm["thousand"]["estimated_money"] = 1.5
    case.report["currency"] = "EUR"
    assert "money, EUR 1.50" in said(page(case)) and 'alt="Score against money"' in page(case)
