"""What a tombstone covers, and what it gives away: nothing but digests under a salt."""

from hypothesis import given
from hypothesis import strategies as st

from tasks.records import Record
from tasks.tombstones import BLANK, Erased, Erasure, Tombstones, blanked, document_key, shot_key

SALT = "5a" * 32
ODD = st.text(st.characters(codec="utf-8") | st.sampled_from("'\"%\n\\;_-"), max_size=40)


def erasure(*documents: str, **more: object) -> Erasure:
    known = {"passages": [], "shots": [], "adapters": [], "encoders": [], "releases": {}} | more
    return Erasure.model_validate(
        {"format": 1, "salt": SALT, "documents": [document_key(SALT, each) for each in documents]} | known
    )


def tombstones(*documents: str, **more: object) -> Tombstones:
    return Tombstones((Erased(erasure(*documents, **more), "2026-11-21T10:00:00+00:00", "case 81", 3),))


@given(st.lists(ODD, min_size=1, max_size=5), ODD)
def test_exactly_the_named_pages_are_covered_whatever_they_are_called(documents: list[str], other: str) -> None:
    standing = tombstones(*documents)
    assert all(map(standing.covers, documents))
    assert standing.covers(other) == (other in documents)
    assert not standing.covers(None) and not Tombstones().covers(other)


def test_neither_an_id_nor_the_plain_digest_of_one_stands_in_an_erasure() -> None:
    from tasks.records import text_digest

    sealed = erasure("staff/jane-doe").model_dump_json()
    assert "jane" not in sealed and text_digest("staff/jane-doe") not in sealed
    assert document_key("00" * 32, "staff/jane-doe") not in sealed  # another erasure of it has another digest


def test_an_adapter_knew_a_page_by_a_question_about_it_or_by_a_passage_of_its_examples() -> None:
    standing = tombstones("a", passages=["p1"])
    by_page = standing.learnt({"documents": ["b", "a"], "passages": []})
    assert by_page is not None and by_page.sequence == 3
    assert standing.learnt({"documents": ["b"], "passages": ["p0", "p1"]}) is not None
    assert standing.learnt({"documents": ["b"], "passages": ["p0"]}) is None
    assert standing.learnt(None) is not None  # it does not say what it learnt
    assert Tombstones().learnt(None) is None


def test_an_adapter_is_withheld_by_its_digest() -> None:
    standing = tombstones("a", adapters=["1" * 64], encoders=["2" * 64])
    assert standing.withheld("1" * 64) and standing.withheld("2" * 64)
    assert standing.withheld("3" * 64) is None and standing.withheld(None) is None


def test_few_shot_turns_that_show_it_go_and_the_others_stay_in_order() -> None:
    turns = [{"role": role, "content": f"{role} {at}"} for at in range(3) for role in ("user", "assistant")]
    standing = tombstones("a", shots=[shot_key(turns[2], turns[3])])
    assert standing.without({"rag": turns, "lora": []}) == {"rag": turns[:2] + turns[4:], "lora": []}


def answer(document: str | None, *shown: str) -> Record:
    return {
        "question": "q1", "text": "How long?", "document": document, "answer": "29 days", "reference": "29", "fact": None,
        "passages": [{"document": page, "text": f"of {page}"} for page in shown], "ranked_pages": [*shown, "z"],
        "scores": {"fact": 1.0},
    }  # fmt: skip


def test_an_answer_about_an_erased_page_keeps_its_scores_and_nothing_that_it_says() -> None:
    told = blanked(answer("a", "a", "b"), tombstones("a").covers)
    assert [told[key] for key in ("text", "document", "answer", "reference", "fact")] == [BLANK] * 4 + [None]
    assert told["passages"] == [{"document": "b", "text": "of b"}] and told["ranked_pages"] == [BLANK, "b", "z"]
    assert told["scores"] == {"fact": 1.0} and told["question"] == "q1"


def test_an_answer_that_was_given_with_a_passage_of_it_may_state_it_and_goes_too() -> None:
    told = blanked(answer("b", "a"), tombstones("a").covers)
    assert (told["answer"], told["text"], told["document"]) == (BLANK, "How long?", "b")
    untouched = answer("b", "b")
    assert blanked(untouched, tombstones("a").covers) is untouched
