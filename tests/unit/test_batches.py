from pathlib import Path
from typing import Any

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from tasks.batches import IGNORED, Example, by_length, plain, summed_loss, tensors, tokenised
from tasks.errors import InputError
from tasks.generation import Generator

BUILTIN = tiny.ROOT / "infra/base_model/model"  # it has convolutions, which padding could leak into
MESSAGES = [{"role": "user", "content": "Question: when does the van leave?"}]
RECORD = {"prompt": MESSAGES, "completion": [{"role": "assistant", "content": "At Puffin it is at 5:45."}]}


@pytest.fixture(params=["tiny", "builtin"])
def base(request: pytest.FixtureRequest, tiny_base: Path) -> Path:
    return tiny_base if request.param == "tiny" else BUILTIN


def test_what_is_trained_begins_with_the_very_ids_that_are_served(base: Path) -> None:
    """`Generator` is what evaluation and serving ask."""
    generator = Generator(base, None, {"do_sample": False, "max_new_tokens": 1, "dtype": "float32"})
    served = generator.tokenizer(generator.render(MESSAGES), add_special_tokens=False)["input_ids"]
    example = tokenised(RECORD, generator.tokenizer)
    assert example.ids[: -example.answer] == served
    assert (
        generator.tokenizer.decode(example.ids[-example.answer :], skip_special_tokens=True).strip() == "At Puffin it is at 5:45."
    )
    assert set(example.ids[-example.answer :]) & set(generator.model.generation_config.eos_token_id)  # it learns to stop


def test_a_template_under_which_what_is_learnt_is_not_what_is_asked_is_refused(tiny_base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.chat_template = "{{ messages | length }}" + tokenizer.chat_template
    with pytest.raises(InputError, match="what is learnt would not be what is asked"):
        tokenised(RECORD, tokenizer)


@given(lengths=st.lists(st.integers(1, 60), min_size=1), most=st.integers(1, 200))
def test_batches_hold_every_example_once_within_their_tokens(lengths: list[int], most: int) -> None:
    batches = by_length([Example([0] * length, 1) for length in lengths], most)
    assert sorted(len(example) for batch in batches for example in batch) == sorted(lengths)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(map(len, batch)) <= most


def test_only_the_answer_is_learnt_and_stands_at_the_end() -> None:
    import torch

    made = tensors([Example([5, 6, 7], 1), Example([8, 9], 1), Example([1, 2, 3, 4], 3)], 0, "cpu")
    assert made["input_ids"].tolist() == [[0, 5, 6, 7], [0, 0, 8, 9], [1, 2, 3, 4]]
    assert made["labels"].tolist() == [[IGNORED, IGNORED, 7], [IGNORED, IGNORED, 9], [2, 3, 4]]
    assert made["position_ids"].tolist() == [[0, 0, 1, 2], [0, 0, 0, 1], [0, 1, 2, 3]]
    assert torch.equal(made["attention_mask"].sum(1), torch.tensor([3, 2, 4]))


def test_an_examples_loss_does_not_depend_on_its_batch(base: Path) -> None:
    """Nothing leaks from padding, and logits at the answers alone give the loss that all logits give."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(base)
    examples = [
        plain(text * times, tokenizer, 200) for times, text in enumerate(("A van. ", "Rye bread at nine. ", "Two. "), start=1)
    ]
    examples.append(tokenised(RECORD, tokenizer))
    with torch.no_grad():
        alone = [float(summed_loss(model, tensors([example], 0, "cpu"))) for example in examples]
        together = float(summed_loss(model, tensors(examples, 0, "cpu")))
        whole = [whole_loss(model, example) for example in examples]
    assert together == pytest.approx(sum(alone), rel=1e-5)
    assert alone == pytest.approx(whole, rel=1e-5)


def whole_loss(model: Any, example: Example) -> float:
    """As transformers itself computes it, from labels in the place of the ids."""
    import torch

    labels = [IGNORED] * (len(example) - example.answer) + example.ids[len(example) - example.answer :]
    out = model(input_ids=torch.tensor([example.ids]), labels=torch.tensor([labels]))
    return float(out.loss) * sum(label != IGNORED for label in labels[1:])
