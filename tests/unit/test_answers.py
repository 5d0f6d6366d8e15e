from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import tasks.answers
from tasks.answers import AnswerStore, answer_all, answer_key
from tasks.generation import GENERATING, Generated, Generator, decoding, environment, resolved
from tasks.params import PromptParams
from tasks.params_files import load

PROMPT = load(PromptParams, Path(__file__).parents[2] / "params")
HERE = {"processor": "cpu AVX2", "torch": "2.13.0", "transformers": "5.23.0", "peft": "0.21.0"}
GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 4, "dtype": "float32"}


class Echo:
    """A generator that counts: it answers a prompt with the prompt itself."""

    decoding = GREEDY

    def __init__(self) -> None:
        self.asked: list[str] = []

    def batches(self, prompts: Sequence[str], batch_tokens: int, label: str) -> Iterator[dict[str, Generated]]:
        self.asked += prompts
        yield {prompt: Generated(prompt, 1, 1) for prompt in prompts}


def test_an_answer_is_generated_once_and_again_after_an_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, echo = AnswerStore(tmp_path / "answers.sqlite"), Echo()

    def ask() -> list[str]:
        return [found.text for found in answer_all(echo, store, "w", ["a", "b", "a"], 2, "test")]  # type: ignore[arg-type]

    assert ask() == ask() == ["a", "b", "a"]
    assert echo.asked == ["a", "b"]
    monkeypatch.setattr(tasks.answers, "environment", lambda: environment() | {"torch": "99"})
    assert ask() == ["a", "b", "a"] and echo.asked == ["a", "b", "a", "b"]
    monkeypatch.setattr(tasks.answers, "FORMAT", 99)
    assert ask() and len(echo.asked) == 6


def test_the_key_covers_weights_decoding_libraries_processor_and_prompt() -> None:
    keys = [answer_key("w", GREEDY, HERE, "p"), answer_key("v", GREEDY, HERE, "p"), answer_key("w", GREEDY, HERE, "q")]
    keys += [
        answer_key("w", GREEDY | {"dtype": "bfloat16"}, HERE, "p"),
        answer_key("w", GREEDY | {"max_new_tokens": 5}, HERE, "p"),
    ]
    keys += [answer_key("w", GREEDY, HERE | {name: "other"}, "p") for name in HERE]
    assert len(set(keys)) == len(keys) == 9
    assert set(environment()) == {"processor", *GENERATING}


def test_the_precision_that_auto_means_here_is_what_a_release_pins() -> None:
    auto = resolved(PROMPT.model_copy(update={"precision": "auto"}))
    assert auto.precision in ("float32", "bfloat16") and decoding(auto)["dtype"] == auto.precision
    assert resolved(PROMPT.model_copy(update={"precision": "bfloat16"})).precision == "bfloat16"


def test_a_real_generator_that_is_asked_what_is_known_makes_nothing(tmp_path: Path, tiny_base: Path) -> None:
    store, generator = AnswerStore(tmp_path / "answers.sqlite"), Generator(tiny_base, None, GREEDY)
    prompts = [generator.render([{"role": "user", "content": word}]) for word in ("Flour?", "Sugar?", "Flour?")]
    first = answer_all(generator, store, "w", prompts, 2, "test")
    generator.model = None
    assert answer_all(generator, store, "w", prompts, 2, "test") == first
    assert first[0] == first[2] and len(first) == 3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_generator_computes_in_the_precision_of_its_decoding(tiny_base: Path, dtype: str) -> None:
    generator = Generator(tiny_base, None, GREEDY | {"dtype": dtype})
    assert str(generator.model.dtype) == f"torch.{dtype}"
    made = generator.answer([{"role": "user", "content": "When does the van leave?"}])
    assert 0 < made.completion_tokens <= 4
