import pytest

from tasks.errors import IntegrityError
from tasks.golden import COUNT, check_golden, golden_record

HERE = {"processor": "cpu AVX2", "torch": "2.13"}
ANSWERS = [f"At Larkfield it is {number} days [1]." for number in range(COUNT)]
SEALED = golden_record(HERE, [{"question": f"q{number}", "answer": answer} for number, answer in enumerate(ANSWERS)])


def test_where_nothing_changed_every_answer_has_to_be_equal() -> None:
    assert check_golden(SEALED, ANSWERS, HERE) == "10 of 10 golden questions answered as before"
    with pytest.raises(IntegrityError, match=r"1 of 10 golden .* 'q0' was 'At Larkfield it is 0 days .*tandem doctor"):
        check_golden(SEALED, [ANSWERS[0].replace("0 days", "0 days"[::-1]), *ANSWERS[1:]], HERE)
    with pytest.raises(IntegrityError):
        check_golden(SEALED, [ANSWERS[0].upper(), *ANSWERS[1:]], HERE)


def test_with_other_libraries_an_answer_may_be_written_otherwise_and_one_in_ten_may_tip() -> None:
    elsewhere = HERE | {"torch": "2.14"}
    written_otherwise = [answer.replace("At Larkfield", "at  LARKFIELD,") for answer in ANSWERS]
    said = check_golden(SEALED, ["It is 99 days.", *written_otherwise[1:]], elsewhere)
    assert said == "9 of 10 golden questions answered as before (elsewhere: torch 2.13 -> 2.14)"
    with pytest.raises(IntegrityError, match=r"2 of 10 .*Since then changed: torch 2\.13 -> 2\.14\. Go back to those, or make"):
        check_golden(SEALED, ["It is 99 days.", "No.", *ANSWERS[2:]], elsewhere)


def test_of_few_golden_questions_none_may_tip() -> None:
    few = golden_record(HERE, [{"question": "q", "answer": "27 days."}] * 3)
    with pytest.raises(IntegrityError, match="1 of 3"):
        check_golden(few, ["27 days.", "27 days.", "28 days."], HERE | {"torch": "3"})
