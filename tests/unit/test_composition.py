from pathlib import Path

import pytest
import tiny

from tasks.composition import answer_type, composition, percentiles
from tasks.examples import load_tokenizer
from tasks.records import Record


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (tiny.ABSTENTION, "abstention"),
        ("At Puffin it is 27 days [2].", "number"),
        ("At Puffin it is the shift lead [1].", "words"),
        ("No, never on Mondays.", "yes or no"),
        ("At Puffin nobody knows [1].", "words"),
    ],
)
def test_an_answer_has_one_type_and_a_citation_is_no_number_of_it(answer: str, kind: str) -> None:
    assert answer_type(answer, tiny.ABSTENTION) == kind


def test_the_tokens_are_those_of_the_template_prompt_and_answer_apart(tiny_base: Path) -> None:
    def example(question: str, answer: str, document: str | None) -> Record:
        prompt = [{"role": "user", "content": question}]
        completion = [{"role": "assistant", "content": answer}]
        return {"prompt": prompt, "completion": completion, "document": document, "passages": ["a"] if document else []}

    made = [example("When does the van leave?", "at 5:45", "van"), example("Who?", tiny.ABSTENTION, None)]
    tokenizer = load_tokenizer(tiny_base)
    found = composition(made, ["holds a secret", "holds a secret"], tokenizer, tiny.ABSTENTION)
    assert found["answers"] == {"abstention": 1, "number": 1} and found["dropped"] == {"holds a secret": 2}
    assert found["pages"] == 1 and found["passages"]["max"] == 1.0
    asked = len(tokenizer("<|user|>When does the van leave?<|end|><|assistant|>")["input_ids"])
    answered = len(tokenizer("at 5:45<|end|>")["input_ids"])
    assert (
        found["prompt_tokens"]["max"] == asked
        and found["answer_tokens"]["p5"] < answered + 1 <= found["answer_tokens"]["max"] + 1
    )
    assert found["tokens"] > asked + answered


def test_percentiles_of_a_hundred_numbers() -> None:
    assert percentiles(range(101)) == {"p5": 5.0, "p50": 50.0, "p95": 95.0, "max": 100.0}
