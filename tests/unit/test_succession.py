"""Which release a plain rollback goes to, and which ones may not come back by themselves: from the ledger alone."""

import pytest

from flows.ledger import Entry
from flows.rollback import choose_target
from flows.succession import succession
from tasks.errors import InputError

NUMBERS = {number: f"{number}" * 64 for number in range(1, 6)}


def story(*moves: str) -> list[Entry]:
    """p1 p2 b1 x: 1 and 2 promoted, back to 1, a refusal; r1: maintenance drops 1."""
    entries: list[Entry] = []
    for sequence, move in enumerate(moves, start=1):
        live = entries[-1].number if entries else None
        number = int(move[1:]) if move[0] in "pb" else live
        action = {"p": "promote", "b": "rollback", "x": "refuse", "r": "retire"}[move[0]]
        evidence = {"release": NUMBERS[int(move[1:])]} if action == "retire" else {}
        entries.append(
            Entry.model_construct(
                action=action, release=NUMBERS.get(number or 0), number=number, sequence=sequence, evidence=evidence,
                at="2026-01-31T09:30:00+00:00", who="ada", why="because",
            )
        )  # fmt: skip
    return entries


@pytest.mark.parametrize(
    ("moves", "target"),
    [
        ("p1 p2", 1),
        ("p1 x p2 x", 1),
        ("p1 p2 p3 b2", 1),
        ("p1 p2 b1 p3", 1),  # not 2, which was rolled back from
        ("p1 p2 p3 b1 p4", 1),  # nor 2, which was skipped on the way back
        ("p1 p2 b1 b2", 1),  # 2 is back on purpose, 1 is what it followed
        ("p1 p2 p1", 2),  # the same content was promoted again
        ("p1 p2 p3 r2", 1),  # 2 is gone
    ],
)
def test_a_plain_rollback_goes_to_the_release_that_the_live_one_followed(moves: str, target: int) -> None:
    assert choose_target(story(*moves.split()), None).number == target


@pytest.mark.parametrize("moves", ["p1 p2 b1", "p1 p2 p3 b2 b1", "p1 p2 p1 b2", "p1 p2 r1"])
def test_where_nothing_stands_before_the_live_release_a_person_has_to_name_one(moves: str) -> None:
    """Going "back" a second time must not go forward to what was just left."""
    with pytest.raises(InputError, match=r"no release stands before release \d.*tandem rollback --to"):
        choose_target(story(*moves.split()), None)


@pytest.mark.parametrize("name", ["2", "222222", "seq:3"])
def test_what_is_live_is_not_gone_back_to(name: str) -> None:
    with pytest.raises(InputError, match="release 2 is live already; nothing to roll back"):
        choose_target(story("p1", "p2", "x"), name)


def test_the_only_release_has_nothing_to_go_back_to() -> None:
    with pytest.raises(InputError, match="release 1 is the only one that ever was live"):
        choose_target(story("p1"), None)


@pytest.mark.parametrize(
    ("moves", "withdrawn"),
    [("p1 p2", []), ("p1 p2 b1", [2]), ("p1 p2 x b1 x", [2]), ("p1 p2 b1 b2", []), ("p1 p2 b1 b2 b1", [2]), ("p1 p2 b1 p3", [2])],
)
def test_what_was_rolled_back_from_is_withdrawn_until_a_person_has_it_back(moves: str, withdrawn: list[int]) -> None:
    assert list(succession(story(*moves.split())).withdrawn) == [NUMBERS[number] for number in withdrawn]
