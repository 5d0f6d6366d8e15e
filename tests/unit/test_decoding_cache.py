from typing import Any

import pytest

from tasks.decoding_cache import SPARE, one_layer


def layer(rows: int, tokens: int, start: float) -> Any:
    """Of one head of size 1; its keys count on from `start`, its values are ten times as much."""
    import torch
    from transformers.cache_utils import DynamicLayer

    keys = torch.arange(start, start + rows * tokens).reshape(rows, 1, tokens, 1)
    made: Any = DynamicLayer()
    made.update(keys, 10 * keys)
    return made


def keys(room: Any) -> list[list[float]]:
    assert (room.values == 10 * room.keys).all() and room.get_seq_length() == room.keys.shape[2]
    return [row[0, :, 0].tolist() for row in room.keys]


def test_rows_of_all_parts_stand_at_the_right_and_what_is_too_wide_is_cut_on_the_left() -> None:
    room = one_layer([layer(2, 3, 1), layer(1, 1, 50)], 2)
    assert keys(room) == [[2, 3], [5, 6], [0, 50]]
    assert keys(one_layer([room, layer(1, 3, 7)], 3)) == [[0, 2, 3], [0, 5, 6], [0, 0, 50], [7, 8, 9]]


def test_a_token_is_written_beside_the_others_and_nothing_else_is_touched() -> None:
    import torch

    room = one_layer([layer(2, 2, 1)], 2)
    place, more = room.keys.data_ptr(), torch.tensor([90.0, 91.0]).reshape(2, 1, 1, 1)
    room.update(more, 10 * more)
    assert keys(room) == [[1, 2, 90], [3, 4, 91]] and room.keys.data_ptr() == place
    for _ in range(SPARE):
        room.update(more, 10 * more)
    assert keys(room)[1] == [3, 4] + [91] * (SPARE + 1) and room.keys.data_ptr() != place  # one more than there was room for


@pytest.mark.parametrize("heads", [1, 3])
def test_growing_never_writes_into_the_next_head(heads: int) -> None:
    import torch
    from transformers.cache_utils import DynamicLayer

    tokens = torch.rand(4, heads, 2 * SPARE + 3, 5)
    part: Any = DynamicLayer()
    part.update(tokens[:, :, :3], tokens[:, :, :3])
    room = one_layer([part], 3)
    for place in range(3, tokens.shape[2]):
        room.update(tokens[:, :, place : place + 1], tokens[:, :, place : place + 1])
    assert torch.equal(room.keys, tokens) and torch.equal(room.values, tokens)


def test_a_row_that_stays_where_it_is_is_not_copied() -> None:
    import torch

    room = one_layer([layer(4, 2, 1)], 2)
    place = room.keys.data_ptr()
    room.keep([0, 3])
    assert keys(room) == [[1, 2], [7, 8]] and room.keys.data_ptr() == place
    more = torch.tensor([90.0, 91.0]).reshape(2, 1, 1, 1)
    room.update(more, 10 * more)
    assert keys(room) == [[1, 2, 90], [7, 8, 91]]
