"""Checks of the recipe and of the committed model: `pytest infra/base_model` (a few seconds, no network)."""

import random
import sys
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import bank  # noqa: E402
import evaluate  # noqa: E402
import examples  # noqa: E402
import network  # noqa: E402
import prose  # noqa: E402
import scenes  # noqa: E402
import tokenizer as pieces  # noqa: E402

PASSAGES = [("Leave > Contractors", "Contractors get 27 days of leave."), ("Rooms", "The Falcon room seats 12 people.")]


@pytest.fixture(scope="module")
def params() -> dict:
    return yaml.safe_load((HERE / "params.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def fresh(params: dict) -> tuple:
    raw, sources = pieces.build(**params["tokenizer"])
    shape = params["network"]
    rows = torch.from_numpy(pieces.embeddings(sources, shape["width"], shape["identity"], 0))
    return raw, network.build(shape, rows, 0).eval()


@pytest.fixture(scope="module")
def committed() -> tuple:
    model = AutoModelForCausalLM.from_pretrained(HERE / "model", dtype=torch.float32).eval()
    return AutoTokenizer.from_pretrained(HERE / "model"), model


@torch.no_grad()
def test_the_fast_forward_pass_is_that_of_transformers(fresh: tuple) -> None:
    _, model = fresh
    ids = torch.randint(300, 20000, (2, 40), generator=torch.Generator().manual_seed(0))
    states, _ = network.hidden_states(model, ids)
    ours = network.logits(model, states, torch.arange(model.config.vocab_size))
    torch.testing.assert_close(ours, model(ids).logits, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_an_untrained_network_goes_on_with_a_copy(fresh: tuple) -> None:
    raw, model = fresh
    ids = raw.encode("copper lantern: Ines Marchetti 4509. Tall bridge: blue. Ines Marchetti 45").ids
    assert raw.id_to_token(int(model(torch.tensor([ids])).logits[0, -1].argmax())) == "0"


def test_the_template_renders_documents_as_the_plain_content() -> None:
    raw = AutoTokenizer.from_pretrained(HERE / "model")
    content = examples.user_content("How much leave?", PASSAGES)
    plain = raw.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)
    slot = evaluate.rendered(raw, evaluate.Asked("", "How much leave?", PASSAGES, ""))
    assert plain == slot == f"<|user|>{content}<|end|><|assistant|>"


def test_the_template_marks_the_assistant_turn_with_its_end_token(committed: tuple) -> None:
    tokenizer, _ = committed
    turns = [{"role": "user", "content": "Question: Why?"}, {"role": "assistant", "content": "27 days"}]
    out = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    told = [token for token, mine in zip(out["input_ids"], out["assistant_masks"], strict=True) if mine]
    assert tokenizer.decode(told) == "27 days<|end|>"
    assert told[-1] == tokenizer.eos_token_id


def test_left_padded_batches_answer_as_single_prompts_do(committed: tuple) -> None:
    tokenizer, model = committed
    asked = [
        evaluate.Asked("", "How much leave do contractors get?", PASSAGES, ""),
        evaluate.Asked("", "Who?", PASSAGES[:1], ""),
    ]
    assert evaluate.answers(model, tokenizer, asked, 2) == evaluate.answers(model, tokenizer, asked, 1)


def test_text_survives_the_tokenizer(fresh: tuple) -> None:
    raw, _ = fresh
    text = "Question: 1,450 € for Łódź (HR-204)?\n[1] A > B: 09:30; it's 50%.\nQuestion: x?"
    assert raw.decode(raw.encode(text).ids) == text


def test_every_example_holds_its_answer_where_it_says() -> None:
    rng, drawn = random.Random(0), bank.Bank(validation=False)
    for _ in range(300):
        example = prose.prose_example(rng, drawn, rng.randint(1, 4), rng.randint(1, 3), rng.random() < 0.2, 2)
        text, _, _ = examples.laid_out(example)
        _, _, start, end = examples.gold_span(example, text)
        assert text[start:end] == example.value
        assert example.gold < 0 or example.value in example.passages[example.gold][1]


def test_held_out_phrasings_are_no_training_phrasings() -> None:
    for attribute in bank.load_bank():
        known, secret = (bank.forms(attribute, side)[1] for side in (False, True))
        assert set(known).isdisjoint(secret) or set(known) == set(attribute.questions)


def test_wilsons_interval_is_the_textbook_one() -> None:
    low, high = evaluate.wilson(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)


def test_every_scene_holds_its_answer_where_it_says() -> None:
    rng, known = random.Random(0), scenes.load_scenes()
    for _ in range(300):
        example = scenes.scene_example(rng, known, 2)
        text, _, _ = examples.laid_out(example)
        _, _, start, end = examples.gold_span(example, text)
        assert text[start:end] == example.value


def test_scenes_leave_no_slot_and_no_choice_open() -> None:
    rng, known = random.Random(1), scenes.load_scenes()
    for scene in known:
        page = scenes.staged(rng, scene, None)
        texts = [page.title, *(text for fact in page.facts for text in (fact.sentence, *fact.questions))]
        assert not any(mark in text for text in texts for mark in "[]{}|"), page.title


def test_further_questions_are_answered_in_the_passage_they_name() -> None:
    rng, known = random.Random(2), scenes.load_scenes()
    for _ in range(300):
        example = scenes.scene_example(rng, known, 6)
        for turn in example.later:
            assert turn.answer == examples.UNANSWERED or turn.answer in example.passages[turn.gold][1]


def test_a_manner_gives_the_beginning_and_keeps_the_value() -> None:
    rng = random.Random(3)
    example = examples.Example("How much?", PASSAGES, "27 days", 0, "Contractors get 27 days of leave.", "27 days")
    for _ in range(50):
        worded = prose.in_a_manner(rng, example)
        assert worded.lead
        assert "27 days" in worded.answer
