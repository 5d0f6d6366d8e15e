"""Greedy decoding of many prompts: the answers of transformers' `generate`, with less work.

What all prompts begin with is read once. The rest is read in groups of equal length, so that nothing is padded. Rows that have
ended leave at once, and others take their places while half of them still stand.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from itertools import groupby, takewhile
from typing import Any

from tasks.errors import InputError

Tokens = list[int]
Decoded = Iterator[dict[int, Tokens]]  # number of a prompt -> what was written, its end included; some at a time
Decoder = Callable[[Any, Sequence[Tokens], int], Decoded]  # model, prompts, most rows at once
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


def greedy(model: Any, prompts: Sequence[Tokens], most_rows: int) -> Decoded:
    """By the model's own generation config: where it stops, and how many tokens at most.

    Raises InputError where its arithmetic breaks down.
    """
    if len(prompts) != 1 and min(map(len, prompts), default=2) < 2:  # nothing to read before the last token
        yield from generate(model, prompts, most_rows)
        return
    rows = whole(model, prompts[0]) if len(prompts) == 1 else None  # its last token alone would be one step more
    waiting = [] if rows else sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    shared = common(prompts) if waiting else 0
    beginning = read(model, [prompts[0][:shared]], None) if shared else None
    done: dict[int, Tokens] = {}
    while waiting or rows:
        if waiting and (rows is None or 2 * len(rows.numbers) <= most_rows):
            if done:
                yield done
            done, free = {}, most_rows - (len(rows.numbers) if rows else 0)
            rows = joined(([rows] if rows else []) + started(model, prompts, waiting[:free], beginning, shared))
            waiting = waiting[free:]
        assert rows is not None
        step(model, rows)
        ended = [place for place, row in enumerate(rows.written) if has_ended(row, model.generation_config)]
        done |= {rows.numbers[place]: rows.written[place] for place in ended}
        rows = without(rows, ended) if ended else rows
    yield done


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


def read(model: Any, texts: list[Tokens], beginning: Any) -> Any:
    """The cache of `beginning` (of one row) and then each of the texts, which are of one length; no word is predicted."""
    import torch

    cache = deepcopy(beginning)
    if cache is not None:
        cache.reorder_cache(torch.zeros(len(texts), dtype=torch.long, device=model.device))
    if cache is not None and not texts[0]:
        return cache
    ids = torch.tensor(texts, dtype=torch.long, device=model.device)
    return model.get_decoder()(input_ids=ids, past_key_values=cache, use_cache=True).past_key_values


def step(model: Any, rows: Rows) -> None:
    """One more token of every row."""
    import torch

    count = rows.last.shape[1]
    positions = rows.mask.sum(1, keepdim=True) + torch.arange(count, device=model.device)
    rows.mask = torch.nn.functional.pad(rows.mask, (0, count), value=1)
    found = model(input_ids=rows.last, attention_mask=rows.mask, position_ids=positions, past_key_values=rows.cache,
                  use_cache=True, logits_to_keep=1)  # fmt: skip
    scores = found.logits[:, -1].float()  # (rows, vocabulary)
    rows.last = scores.argmax(-1, keepdim=True)
    if not bool(scores.gather(1, rows.last).isfinite().all()):
        raise InputError(
            "the model's numbers overflow or are none (NaN), so it has no answers: its weights are damaged, or `precision` in "
            "params/prompt.yaml is too small for it; try float32, and another adapter"
        )
    for row, token in zip(rows.written, rows.last[:, 0].tolist(), strict=True):
        row.append(token)


# --- What stands in the caches


def without(rows: Rows, ended: list[int]) -> Rows | None:
    import torch

    kept = [place for place in range(len(rows.numbers)) if place not in ended]
    if not kept:
        return None
    places = torch.tensor(kept, device=rows.mask.device)
    rows.cache.reorder_cache(places)
    numbers, written = [rows.numbers[place] for place in kept], [rows.written[place] for place in kept]
    return Rows(numbers, written, rows.last[places], rows.mask[places], rows.cache)


def joined(parts: list[Rows]) -> Rows:
    """Rows of one width: where all are padded, that is cut off, else padded on the left."""
    import torch

    masks = [part.mask[:, int(part.mask.argmax(1).min()) :] for part in parts]
    width = max(mask.shape[1] for mask in masks)
    cache = parts[0].cache
    for number, layer in enumerate(cache.layers):
        same = [part.cache.layers[number] for part in parts]
        if hasattr(layer, "conv_states"):
            layer.conv_states = {place: torch.cat([each.conv_states[place] for each in same]) for place in layer.conv_states}
        else:
            layer.keys = torch.cat([widened(each.keys, width) for each in same])
            layer.values = torch.cat([widened(each.values, width) for each in same])
    mask = torch.cat([torch.nn.functional.pad(mask, (width - mask.shape[1], 0)) for mask in masks])
    numbers, written = [number for part in parts for number in part.numbers], [row for part in parts for row in part.written]
    return Rows(numbers, written, torch.cat([part.last for part in parts]), mask, cache)


def widened(states: Any, width: int) -> Any:
    """(rows, heads, tokens, size) to `width` tokens; what is cut off is padding."""
    import torch

    return torch.nn.functional.pad(states, (0, 0, width - states.shape[2], 0))  # a negative pad cuts


# --- Models that are not understood here


def generate(model: Any, prompts: Sequence[Tokens], most_rows: int) -> Decoded:
    """By transformers' own loop, the shortest prompts first: less padding."""
    import torch

    pad, stops = model.generation_config.pad_token_id, model.generation_config.eos_token_id
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    for start in range(0, len(order), most_rows):
        part = order[start : start + most_rows]
        width = max(len(prompts[number]) for number in part)
        ids = torch.tensor([[pad] * (width - len(prompts[number])) + prompts[number] for number in part])
        mask = torch.tensor([[0] * (width - len(prompts[number])) + [1] * len(prompts[number]) for number in part])
        made = model.generate(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))[:, width:].tolist()
        yield {number: until_end(row, stops) for number, row in zip(part, made, strict=True)}


def until_end(row: Tokens, stops: Tokens) -> Tokens:
    """Without what pads it to the length of the longest."""
    end = next((place for place, token in enumerate(row) if token in stops), len(row))
    return row[: end + 1]
