"""Greedy decoding of many prompts: the answers of transformers' `generate`, with less work.

What all prompts begin with is read once. The rest is read in groups of equal length, so that nothing is padded. Rows that have
ended leave at once, and others take their places when half are gone. Keys and values stand in tasks/decoding_cache.py.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from itertools import groupby, takewhile
from typing import Any

from tasks.decoding_cache import keep, one_layer, read
from tasks.errors import InputError

Tokens = list[int]
Decoded = Iterator[dict[int, Tokens]]  # number of a prompt -> what was written, its end included; some at a time
Decoder = Callable[[Any, Sequence[Tokens], int], Decoded]  # model, prompts, most tokens whose keys and values are held at once
READ_AT_ONCE = 1024  # tokens of a group: with fewer each costs more, with more what is computed leaves the processor's cache


@dataclass
class Rows:
    """Answers in the making. The cache holds `width` tokens of each; short rows are padded on the left."""

    numbers: list[int]  # of their prompts
    written: list[Tokens]
    last: Any  # (rows, tokens): what is read next
    mask: Any  # (rows, width)
    cache: Any


def decoder_of(model: Any) -> Decoder:
    """`greedy` where the cache is keys and values of all tokens, in LFM2 also the inputs of its short convolutions; else
    `generate`. A sliding window forgets, and some models with a recurrent state (Bamba) read on from a cache wrongly."""
    from transformers import cache_utils

    known = [cache_utils.DynamicLayer] + [cache_utils.LinearAttentionLayer] * (model.config.model_type == "lfm2")
    layers = cache_utils.DynamicCache(config=model.config).layers
    told = {"position_ids", "logits_to_keep"} <= signature(model.forward).parameters.keys()
    return greedy if told and layers and all(type(layer) in known for layer in layers) else generate


def greedy(model: Any, prompts: Sequence[Tokens], most_tokens: int) -> Decoded:
    """By the model's own generation config: where it stops, and how many tokens at most.

    Raises InputError where its arithmetic breaks down.
    """
    if len(prompts) != 1 and min(map(len, prompts), default=2) < 2:  # nothing to read before the last token
        yield from generate(model, prompts, most_tokens)
        return
    rows = whole(model, prompts[0]) if len(prompts) == 1 else None  # its last token alone would be one step more
    waiting = [] if rows else sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    shared = common(prompts) if waiting else 0
    beginning = read(model, [prompts[0][:shared]], None) if shared else None
    done: dict[int, Tokens] = {}
    begun = 0  # rows that stood when some were last started
    while waiting or rows:
        if waiting and (rows is None or 2 * len(rows.numbers) <= begun):
            if done:
                yield done
            done, count = {}, that_fit(model, prompts, waiting, rows, most_tokens)
            rows = joined(([rows] if rows else []) + started(model, prompts, waiting[:count], beginning, shared))
            waiting, begun = waiting[count:], len(rows.numbers)
        assert rows is not None
        step(model, rows)
        ended = [place for place, row in enumerate(rows.written) if has_ended(row, model.generation_config)]
        done |= {rows.numbers[place]: rows.written[place] for place in ended}
        rows = without(rows, ended) if ended else rows
    yield done


def that_fit(model: Any, prompts: Sequence[Tokens], waiting: list[int], rows: Rows | None, most_tokens: int) -> int:
    """How many of those that wait, shortest first, can join the rows: all become as wide as the widest, and may grow to their
    end. Where there is no row, one at least."""
    standing, width = (len(rows.numbers), rows.mask.shape[1]) if rows else (0, 0)
    most_new = model.generation_config.max_new_tokens
    fit = 0 if standing else 1
    for count, number in enumerate(waiting, start=1):
        if (standing + count) * (max(width, len(prompts[number])) + most_new) > most_tokens:
            break
        fit = count
    return fit


def common(prompts: Sequence[Tokens]) -> int:
    """Tokens that all prompts begin with, and that are followed by at least one: what the first has in common with the last."""
    low, high = (pick(prompt[:-1] for prompt in prompts) for pick in (min, max))
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False)))


def has_ended(row: Tokens, config: Any) -> bool:
    return row[-1] in config.eos_token_id or len(row) == config.max_new_tokens


def whole(model: Any, prompt: Tokens) -> Rows:
    """One row of which nothing is read yet."""
    import torch
    from transformers import DynamicCache

    unread = torch.tensor([prompt], device=model.device)
    return Rows([0], [[]], unread, unread[:, :0], DynamicCache(config=model.config))


def started(model: Any, prompts: Sequence[Tokens], numbers: list[int], beginning: Any, shared: int) -> list[Rows]:
    """Rows whose prompts are read up to the last token; `beginning` is the cache of their first `shared` tokens."""
    import torch

    made = []
    for length, equal in groupby(numbers, key=lambda number: len(prompts[number])):
        group, at_once = list(equal), max(1, READ_AT_ONCE // (length - shared))
        for part in (group[start : start + at_once] for start in range(0, len(group), at_once)):
            cache = read(model, [prompts[number][shared:-1] for number in part], beginning)
            last = torch.tensor([prompts[number][-1:] for number in part], device=model.device)
            mask = torch.ones(len(part), length - 1, dtype=torch.long, device=model.device)
            made.append(Rows(part, [[] for _ in part], last, mask, cache))
    return made


def step(model: Any, rows: Rows) -> None:
    """One more token of every row."""
    import torch

    count = rows.last.shape[1]
    positions = rows.mask.sum(1, keepdim=True) + torch.arange(count, device=model.device)
    rows.mask = torch.nn.functional.pad(rows.mask, (0, count), value=1)
    found = model(input_ids=rows.last, attention_mask=rows.mask, position_ids=positions, past_key_values=rows.cache,
                  use_cache=True, logits_to_keep=1)  # fmt: skip
    scores = found.logits[:, -1].float()  # (rows, vocabulary)
    rows.last = best(scores)
    if not bool(scores.gather(1, rows.last).isfinite().all()):
        raise InputError(
            "the model's numbers overflow or are none (NaN), so it has no answers: its weights are damaged, or `precision` in "
            "params/prompt.yaml is too small for it; try float32, and another adapter"
        )
    for row, token in zip(rows.written, rows.last[:, 0].tolist(), strict=True):
        row.append(token)


def best(scores: Any) -> Any:
    """(rows, 1): of each row the first of its greatest. On a processor NumPy finds it ten times as fast as torch."""
    import torch

    if scores.device.type != "cpu":
        return scores.argmax(-1, keepdim=True)
    return torch.from_numpy(scores.numpy().argmax(-1, keepdims=True))


# --- What stands in the caches


def without(rows: Rows, ended: list[int]) -> Rows | None:
    """The last rows take the places of those that have ended."""
    import torch

    count = len(rows.numbers) - len(ended)
    if not count:
        return None
    moved = iter(place for place in range(count, len(rows.numbers)) if place not in ended)
    kept = [next(moved) if place in ended else place for place in range(count)]
    places = torch.tensor(kept, device=rows.mask.device)
    keep(rows.cache, kept)
    numbers, written = [rows.numbers[place] for place in kept], [rows.written[place] for place in kept]
    return Rows(numbers, written, rows.last[places], rows.mask[places], rows.cache)


def joined(parts: list[Rows]) -> Rows:
    """Rows of one width: where all are padded, that is cut off, else padded on the left. The caches of the parts are used up."""
    import torch

    masks = [part.mask[:, int(part.mask.argmax(1).min()) :] for part in parts]
    width = max(mask.shape[1] for mask in masks)
    cache = parts[0].cache
    for number in range(len(cache.layers)):
        same = [part.cache.layers[number] for part in parts]
        for part in parts:
            part.cache.layers[number] = None  # one layer at a time is held twice
        cache.layers[number] = one_layer(same, width)
    mask = torch.cat([torch.nn.functional.pad(mask, (width - mask.shape[1], 0)) for mask in masks])
    numbers, written = [number for part in parts for number in part.numbers], [row for part in parts for row in part.written]
    return Rows(numbers, written, torch.cat([part.last for part in parts]), mask, cache)


# --- Models that are not understood here


def generate(model: Any, prompts: Sequence[Tokens], most_tokens: int) -> Decoded:
    """By transformers' own loop, the shortest prompts first: less padding."""
    import torch

    config = model.generation_config
    waiting = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    while waiting:
        count = that_fit(model, prompts, waiting, None, most_tokens)
        part, waiting = waiting[:count], waiting[count:]
        width = max(len(prompts[number]) for number in part)
        ids = torch.tensor([[config.pad_token_id] * (width - len(prompts[number])) + prompts[number] for number in part])
        mask = torch.tensor([[0] * (width - len(prompts[number])) + [1] * len(prompts[number]) for number in part])
        made = model.generate(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))[:, width:].tolist()
        yield {number: until_end(row, config.eos_token_id) for number, row in zip(part, made, strict=True)}


def until_end(row: Tokens, stops: Tokens) -> Tokens:
    """Without what pads it to the length of the longest."""
    end = next((place for place, token in enumerate(row) if token in stops), len(row))
    return row[: end + 1]
