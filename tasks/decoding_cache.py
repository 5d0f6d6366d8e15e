"""Keys and values of answers in the making, with as little copied and computed as can be."""

from contextlib import suppress
from copy import copy, deepcopy
from functools import cache as once
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SPARE = 32  # tokens that a row can grow by before all of them move to a larger room
States = tuple["torch.Tensor", "torch.Tensor"]  # keys and values, each (rows, heads, tokens, size)


def read(model: Any, texts: list[list[int]], beginning: Any) -> Any:
    """The cache of `beginning` (of one row) and then each of the texts, which are of one length; no word is predicted."""
    import torch

    cache = repeated(beginning, len(texts)) if beginning is not None else unread(model)
    if texts[0]:
        ids = torch.tensor(texts, dtype=torch.long, device=model.device)
        with suppress(AllThere):
            model.get_decoder()(input_ids=ids, past_key_values=cache, use_cache=True)
    return cache


class AllThere(Exception):
    """All that a cache keeps of a text."""


def unread(model: Any) -> Any:
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    if not hasattr(cache.layers[-1], "conv_states"):
        cache.layers[-1] = last_layer()()
    return cache


def repeated(beginning: Any, count: int) -> Any:
    """Its one row, `count` times."""
    cache = copy(beginning)
    cache.layers = [expanded(layer, count) for layer in beginning.layers]
    return cache


def expanded(layer: Any, count: int) -> Any:
    import torch

    if hasattr(layer, "conv_states"):
        other = deepcopy(layer)
        other.reorder_cache(torch.zeros(count, dtype=torch.long, device=layer.device))
    else:
        other = copy(layer)  # `update` makes new tensors
        other.keys, other.values = layer.keys.expand(count, -1, -1, -1), layer.values.expand(count, -1, -1, -1)
    return other


def one_layer(parts: list[Any], width: int) -> Any:
    """The rows of all parts of a layer, each of `width` tokens: padded on the left, or cut there where that is padding."""
    import torch

    if not hasattr(parts[0], "conv_states"):
        return room()(parts, width)
    parts[0].conv_states = {place: torch.cat([part.conv_states[place] for part in parts]) for place in parts[0].conv_states}
    return parts[0]


def keep(cache: Any, places: list[int]) -> None:
    """The rows of these places, in this order, none before its own place."""
    import torch

    for layer in cache.layers:
        if hasattr(layer, "conv_states"):
            layer.reorder_cache(torch.tensor(places, device=layer.device))
        else:
            layer.keep(places)


# --- Kinds of layers, made when they are wanted: importing transformers takes seconds


@once
def last_layer() -> Any:
    from transformers.cache_utils import DynamicLayer

    class LastLayer(DynamicLayer):  # type: ignore[misc]
        """Where no word is predicted, nobody needs what the last layer makes of its keys and values."""

        def update(self, key_states: "torch.Tensor", value_states: "torch.Tensor", *args: Any, **kwargs: Any) -> States:
            super().update(key_states, value_states, *args, **kwargs)
            raise AllThere

    return LastLayer


@once
def room() -> Any:
    from transformers.cache_utils import DynamicLayer

    class Room(DynamicLayer):  # type: ignore[misc]
        """`keys` and `values` are the used part of larger tensors, in which they stay when a token comes or a row goes."""

        def __init__(self, parts: list[Any], width: int) -> None:
            super().__init__()
            self.dtype, self.device, self.is_initialized = parts[0].dtype, parts[0].device, True
            self.keys, self.values = roomy([part.keys for part in parts], width), roomy([part.values for part in parts], width)

        def update(self, key_states: "torch.Tensor", value_states: "torch.Tensor", *args: Any, **kwargs: Any) -> States:
            self.keys, self.values = longer(self.keys, key_states), longer(self.values, value_states)
            return self.keys, self.values

        def keep(self, places: list[int]) -> None:
            """Only rows that move are copied."""
            for place, other in enumerate(places):
                if place != other:
                    self.keys[place], self.values[place] = self.keys[other], self.values[other]
            self.keys, self.values = self.keys[: len(places)], self.values[: len(places)]

    return Room


def roomy(parts: list["torch.Tensor"], width: int) -> "torch.Tensor":
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


def longer(held: "torch.Tensor", new: "torch.Tensor") -> "torch.Tensor":
    """With the tokens of `new` behind those that are held, in the same room where they fit."""
    width, needed = held.shape[2], held.shape[2] + new.shape[2]
    if held.stride(1) < needed * held.stride(2):  # there the next head begins
        held = roomy([held], width)
    grown = held.as_strided((*held.shape[:2], needed, held.shape[3]), held.stride())
    grown[:, :, width:] = new
    return grown
