"""Keys and values of answers in the making, with as little copied and computed as can be."""

from contextlib import suppress
from copy import copy, deepcopy
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

SPARE = 32  # tokens that a row can grow by before all of them move to a larger room
States = tuple[torch.Tensor, torch.Tensor]  # keys and values, each (rows, heads, tokens, size)


def read(model: Any, texts: list[list[int]], beginning: DynamicCache | None) -> DynamicCache:
    """The cache of `beginning` (of one row) and then each of the texts, which are of one length; no word is predicted."""
    cache = repeated(beginning, len(texts)) if beginning is not None else unread(model)
    if texts[0]:
        ids = torch.tensor(texts, dtype=torch.long, device=model.device)
        with suppress(AllThere):
            model.get_decoder()(input_ids=ids, past_key_values=cache, use_cache=True)
    return cache


class AllThere(Exception):
    """All that a cache keeps of a text."""


class LastLayer(DynamicLayer):  # type: ignore[misc]
    """Where no word is predicted, nobody needs what the last layer makes of its keys and values."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> States:
        super().update(key_states, value_states, *args, **kwargs)
        raise AllThere


def unread(model: Any) -> DynamicCache:
    cache = DynamicCache(config=model.config)
    if type(cache.layers[-1]) is DynamicLayer:
        cache.layers[-1] = LastLayer()
    return cache


def repeated(beginning: DynamicCache, count: int) -> DynamicCache:
    """Its one row, `count` times."""
    cache = copy(beginning)
    cache.layers = [expanded(layer, count) for layer in beginning.layers]
    return cache


def expanded(layer: Any, count: int) -> Any:
    if isinstance(layer, DynamicLayer):  # `update` makes new tensors of them
        other = copy(layer)
        other.keys, other.values = layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1)
    else:
        other = deepcopy(layer)
        other.reorder_cache(torch.zeros(count, dtype=torch.long, device=layer.device))
    return other


# --- Room to write in


def one_layer(parts: list[Any], width: int) -> Any:
    """The rows of all parts of a layer, each of `width` tokens: padded on the left, or cut there where that is padding."""
    if isinstance(parts[0], DynamicLayer):
        return Room(parts, width)
    parts[0].conv_states = {place: torch.cat([part.conv_states[place] for part in parts]) for place in parts[0].conv_states}
    return parts[0]


def keep(cache: DynamicCache, places: list[int]) -> None:
    """The rows of these places, in this order."""
    for layer in cache.layers:
        if isinstance(layer, Room):
            layer.keep(places)
        else:
            layer.reorder_cache(torch.tensor(places, device=layer.device))


class Room(DynamicLayer):  # type: ignore[misc]
    """`keys` and `values` are the used part of larger tensors, in which they stay when a token comes or a row goes."""

    def __init__(self, parts: list[DynamicLayer], width: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = parts[0].dtype, parts[0].device, True
        self.keys, self.values = roomy([part.keys for part in parts], width), roomy([part.values for part in parts], width)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> States:
        self.keys, self.values = longer(self.keys, key_states), longer(self.values, value_states)
        return self.keys, self.values

    def keep(self, places: list[int]) -> None:
        """The rows of these places, in this order, none before its own place: only those that move are copied."""
        for place, other in enumerate(places):
            if place != other:
                self.keys[place], self.values[place] = self.keys[other], self.values[other]
        self.keys, self.values = self.keys[: len(places)], self.values[: len(places)]


def roomy(parts: list[torch.Tensor], width: int) -> torch.Tensor:
    """(rows, heads, `width`, size), with room for SPARE tokens more behind each row."""
    rows, (_, heads, _, size) = sum(len(part) for part in parts), parts[0].shape
    made = parts[0].new_empty(rows, heads, width + SPARE, size)[:, :, :width]
    start = 0
    for part in parts:
        place, padding = made[start : start + len(part)], max(0, width - part.shape[2])
        place[:, :, :padding] = 0
        place[:, :, padding:] = part[:, :, max(0, part.shape[2] - width) :]
        start += len(part)
    return made


def longer(held: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """With the tokens of `new` behind those that are held, in the same room where they fit."""
    width, needed = held.shape[2], held.shape[2] + new.shape[2]
    if held.stride(1) < needed * held.stride(2):  # there the next head begins
        held = roomy([held], width)
    grown = held.as_strided((*held.shape[:2], needed, held.shape[3]), held.stride())
    grown[:, :, width:] = new
    return grown
