"""Golden questions: some answers of the evaluation, asked again before a release is trusted, on this machine or a later one."""

from collections.abc import Mapping, Sequence

from tasks.errors import IntegrityError
from tasks.facts import fact_tokens
from tasks.records import Record

COUNT = 10  # kept per arm, so that one answer may tip on another machine; each is asked alone, so more takes longer to verify
ALIKE = 0.9  # share that has to say the same where the libraries or the processor are others than in the evaluation


def golden_record(environment: Mapping[str, str], answers: Sequence[Record]) -> Record:
    """What is sealed: questions with their answers, and where those were computed."""
    return {"environment": dict(environment), "answers": list(answers[:COUNT])}


def check_golden(golden: Record, given: Sequence[str], here: Mapping[str, str]) -> str:
    """How the answers compare, in words. Raises IntegrityError where it is another model that answers.

    In the environment of the evaluation every answer has to be equal. In another one rounding may tip a word, as greedy decoding
    is only as exact as its arithmetic; the answers must then agree word by word, but for a few.
    """
    pairs = list(zip(golden["answers"], given, strict=True))
    differing = differences(golden["environment"], here)
    other = [pair for pair in pairs if not same(pair[0]["answer"], pair[1], exact=not differing)]
    if len(other) > ((1 - ALIKE) * len(pairs) + 1e-9 if differing else 0):
        record, answer = other[0]
        raise IntegrityError(
            f"{len(other)} of {len(pairs)} golden questions are not answered as in the evaluation: {record['question']!r} "
            f"was {record['answer']!r}, is {answer!r}. {advice(differing)}"
        )
    return f"{len(pairs) - len(other)} of {len(pairs)} golden questions answered as before" + (
        f" (elsewhere: {differing})" if differing else ""
    )


def check_pages(before: Mapping[str, Sequence[str]], found: Mapping[str, Sequence[str]]) -> None:
    """Question -> pages that retrieval found, best first, in the evaluation and now. Another processor's rounding may swap a
    few: the best page has to be the same for almost all. Raises IntegrityError."""
    other = [question for question, pages in before.items() if found[question][:1] != list(pages[:1])]
    if len(other) > (1 - ALIKE) * len(before) + 1e-9:
        question = other[0]
        raise IntegrityError(
            f"for {len(other)} of {len(before)} golden questions another page is found than in the evaluation: {question!r} gave "
            f"{before[question][0]}, gives {next(iter(found[question]), 'none')}"
        )


def same(before: str, after: str, exact: bool) -> bool:
    return before == after if exact else fact_tokens(before) == fact_tokens(after)


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """`torch 2.13 -> 2.14`; empty where nothing differs."""
    keys = sorted(before.keys() | now.keys())
    return ", ".join(f"{key} {before.get(key)} -> {now.get(key)}" for key in keys if before.get(key) != now.get(key))


def advice(differing: str) -> str:
    if not differing:
        return "Its files are whole, so something else changed; run: tandem doctor"
    return f"Since then changed: {differing}. Go back to those, or make a release that was measured here: tandem release"
