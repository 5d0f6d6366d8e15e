from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny

import tasks.decoding
import tasks.decoding_cache
from tasks.decoding import Tokens, best, decoder_of, generate, greedy
from tasks.errors import InputError
from tasks.generation import Generator

MOST = 7  # tokens of an answer
BASES = pytest.mark.parametrize("base", ["tiny", "infra/base_model/model"])  # attention alone; with short convolutions


@pytest.fixture
def model(base: str, tiny_base: Path) -> Any:
    return loaded(tiny_base if base == "tiny" else tiny.ROOT / base)


def loaded(base: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return configured(model)


def configured(model: Any) -> Any:
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(max_new_tokens=MOST, do_sample=False, eos_token_id=[1], pad_token_id=0)
    return model.eval()


def stopping(model: Any, prompts: list[Tokens]) -> None:
    """As if words that stand in some of these answers ended them: one at once, one in the middle."""
    free = all_of(generate, model, prompts, 999)
    middle = next(row[3] for row in free[1:] if row.index(row[3]) == 3)
    model.generation_config.eos_token_id = [1, free[0][0], middle]


def all_of(decoder: Any, model: Any, prompts: list[Tokens], most_tokens: int) -> list[Tokens]:
    import torch

    found: dict[int, Tokens] = {}
    with torch.inference_mode():
        for some in decoder(model, prompts, most_tokens):
            assert not found.keys() & some.keys()
            found |= some
    return [found[number] for number in range(len(prompts))]


def random_prompts(beginning: int, lengths: list[int]) -> list[Tokens]:
    import torch

    chance = torch.Generator().manual_seed(3)
    numbers = lambda count: torch.randint(10, 800, (count,), generator=chance).tolist()  # noqa: E731
    head = numbers(beginning)
    return [head + numbers(length) for length in lengths]


LENGTHS = [5, 30, 5, 12, 2, 5, 17, 30]


@contextmanager
def counted(model: Any) -> Iterator[dict[str, list[int]]]:
    """Tokens that its layers read, rows whose next word it predicts, and tokens that their cache holds then, call by call."""
    found: dict[str, list[int]] = {"read": [], "rows": [], "held": []}

    def layers(module: Any, args: Any, given: dict[str, Any]) -> None:
        found["read"].append(given["input_ids"].numel())

    def words(module: Any, args: Any, given: dict[str, Any]) -> None:
        found["rows"].append(len(given["input_ids"]))
        found["held"].append(given["attention_mask"].numel() if "attention_mask" in given else 0)  # `generate` needs none

    hooks = [
        model.get_decoder().register_forward_pre_hook(layers, with_kwargs=True),
        model.register_forward_pre_hook(words, with_kwargs=True),
    ]
    yield found
    for hook in hooks:
        hook.remove()


@BASES
@pytest.mark.parametrize("beginning", [0, 9])
def test_the_answers_are_those_of_generate(model: Any, beginning: int) -> None:
    prompts = random_prompts(beginning, LENGTHS)
    stopping(model, prompts)
    assert decoder_of(model) is greedy
    expected = [all_of(generate, model, [prompt], 1)[0] for prompt in prompts]
    assert {1, MOST} < set(map(len, expected))  # and one that ends between
    for most_tokens in (1, 100, 999):  # one after the other, some, all at once
        assert all_of(greedy, model, prompts, most_tokens) == expected
    assert [all_of(greedy, model, [prompt], 1)[0] for prompt in prompts] == expected


@BASES
def test_a_prompt_of_a_single_token_is_answered_alone_and_among_others(model: Any) -> None:
    prompts = random_prompts(0, [1, 4, 1])
    expected = [all_of(generate, model, [prompt], 1)[0] for prompt in prompts]
    assert all_of(greedy, model, prompts, 30) == expected
    assert all_of(greedy, model, prompts[:1], 30) == expected[:1]


@BASES
def test_no_token_is_read_twice_and_no_row_is_computed_after_its_end(model: Any) -> None:
    prompts = random_prompts(9, LENGTHS)
    stopping(model, prompts)
    with counted(model) as work:
        answers = all_of(greedy, model, prompts, 100)
    written = sum(map(len, answers))
    assert sum(work["rows"]) == written and 2 < max(work["rows"]) < len(prompts)
    assert max(work["held"]) <= 100
    assert sum(work["read"]) == 9 + sum(LENGTHS) + written - len(prompts)
    with counted(model) as waiting:
        all_of(generate, model, prompts, 100)
    assert max(waiting["rows"]) < len(prompts) and sum(waiting["rows"]) > written  # or the count above would say nothing


@BASES
def test_when_half_of_the_rows_are_gone_others_take_their_places(model: Any) -> None:
    prompts = random_prompts(0, [10] * 9)
    free = all_of(generate, model, prompts, 999)
    long = next(number for number in range(1, 9) if free[0][0] not in free[number])
    model.generation_config.eos_token_id = [free[0][0]]
    prompts = [prompts[number] for number in (long, 0, 0, 0, 0, 0, 0, long)]
    four = 4 * (10 + MOST + 2)  # two steps later four have still room
    with counted(model) as work:
        assert list(map(len, all_of(greedy, model, prompts, four))) == [MOST, *[1] * 6, MOST]
    assert work["rows"] == [4, 4, *[2] * (MOST - 2), 1, 1]


@BASES
def test_long_prompts_of_one_length_are_read_a_few_at_a_time(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = random_prompts(3, [20] * 5)
    expected = all_of(greedy, model, prompts, 999)
    monkeypatch.setattr(tasks.decoding, "READ_AT_ONCE", 45)
    with counted(model) as work:
        assert all_of(greedy, model, prompts, 999) == expected
    assert work["read"][:4] == [3, 38, 38, 19]  # the last token of each is for the first word of its answer


@BASES
def test_rows_that_outgrow_their_room_move_to_a_larger_one(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = random_prompts(3, LENGTHS)
    stopping(model, prompts)
    expected = all_of(greedy, model, prompts, 200)
    monkeypatch.setattr(tasks.decoding_cache, "SPARE", 2)
    assert all_of(greedy, model, prompts, 200) == expected == [all_of(generate, model, [prompt], 1)[0] for prompt in prompts]


@BASES
def test_of_what_is_read_the_last_layer_keeps_its_keys_and_computes_nothing_more(model: Any) -> None:
    layers, prompts = model.get_decoder().layers, random_prompts(3, LENGTHS)
    left: dict[int, int] = {0: 0, len(layers) - 1: 0}
    for place in left:
        layers[place].register_forward_hook(lambda *_, place=place: left.update({place: left[place] + 1}))
    with counted(model) as work:
        all_of(greedy, model, prompts, 999)
    first, last = left.values()
    assert first == len(work["read"]) and last == len(work["rows"]) < first


def test_of_equal_scores_the_first_wins_and_of_scores_that_are_none_the_none() -> None:
    import torch

    scores = torch.tensor([[1.0, 3.0, 3.0], [3.0, 3.0, 0.0], [0.0, float("nan"), 5.0]])
    assert best(scores).tolist() == scores.argmax(-1, keepdim=True).tolist() == [[1], [0], [1]]


@BASES
def test_a_prompt_that_another_one_goes_on_from_has_its_own_answer(model: Any) -> None:
    short, other = random_prompts(4, [3, 6])
    prompts = [short, short + other, short]
    assert all_of(greedy, model, prompts, 99) == [all_of(generate, model, [prompt], 1)[0] for prompt in prompts]


@BASES
def test_no_prompts_have_no_answers(model: Any) -> None:
    assert all_of(greedy, model, [], 4) == all_of(generate, model, [], 4) == []


@BASES
@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_model_whose_arithmetic_breaks_down_has_no_answers(model: Any, weight: float) -> None:
    import torch

    with torch.no_grad():
        model.get_output_embeddings().weight[7].fill_(weight)
    for prompts in (random_prompts(3, [4, 5]), random_prompts(3, [4])):
        with pytest.raises(InputError, match="overflow or are none"):
            all_of(greedy, model, prompts, 99)


def test_models_whose_cache_is_not_understood_are_left_to_generate() -> None:
    from transformers import BambaConfig, BambaForCausalLM, MistralConfig, MistralForCausalLM

    small: dict[str, Any] = {
        "vocab_size": 800, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 2, "initializer_range": 0.2,
    }  # fmt: skip
    window = configured(MistralForCausalLM(MistralConfig(**small, sliding_window=6)))
    state = BambaConfig(**small, mamba_n_heads=4, mamba_d_head=16, mamba_d_state=16, mamba_n_groups=1, attn_layer_indices=[1])
    assert decoder_of(window) is decoder_of(BambaForCausalLM(state)) is generate
    assert decoder_of(configured(MistralForCausalLM(MistralConfig(**small, sliding_window=None)))) is greedy
    prompts = random_prompts(2, LENGTHS)
    stopping(window, prompts)
    assert all_of(generate, window, prompts, 100) == [all_of(generate, window, [prompt], 1)[0] for prompt in prompts]


def test_who_asks_is_not_in_inference_mode_between_two_answers(tiny_base: Path) -> None:
    import torch

    generator = Generator(tiny_base, None, {"do_sample": False, "max_new_tokens": 3, "dtype": "float32"})
    modes = [torch.is_inference_mode_enabled() for _ in generator.batches(["one", "two", "three", "four", "five"], 1, "test")]
    assert len(modes) > 1 and not any(modes)
