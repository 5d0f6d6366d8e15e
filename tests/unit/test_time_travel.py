"""An old release is asked again: with the documents, weights and prompt of then, whatever became live or was dropped since."""

from pathlib import Path

import pytest
import tiny
from releases import QUESTION, Made, Maker, promote, stand_in

from flows import housekeeping, ledger
from flows.opening import open_release
from flows.settings import Settings
from tasks.errors import InputError


def answers_as_then(settings: Settings, name: str, made: Made, number: int) -> None:
    assistant, found = open_release(settings, name)
    given = assistant.ask(QUESTION)
    assert (found, given.release) == (number, made.identity)
    assert given.answer == made.answer
    assert {passage["text"] for passage in given.passages} == made.passages


def maintain(settings: Settings) -> set[int]:
    """The steps of the flow; the numbers of the releases that stay."""
    choice, broken = housekeeping.settle(settings, 1, 0)
    if choice.dropped:
        housekeeping.retire(settings, choice, "old", "run")
    housekeeping.free_index(settings, choice.kept, bool(broken))
    housekeeping.free_store(settings, choice.kept)
    return {found.number for found in choice.kept}


def test_releases_answer_as_they_did_through_new_ones_rollbacks_and_maintenance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    maker = Maker(tmp_path / "clone")
    settings, made = maker.settings, {}
    with tiny.inside(settings.root):
        for number in range(1, 5):
            made[number] = maker.make(number)
            promote(settings, made[number], at=f"2026-01-0{number}T00:00:00+00:00")
        promote(settings, made[2], "rollback", at="2026-01-05T00:00:00+00:00")
        for number, each in made.items():
            answers_as_then(settings, str(number), each, number)
            answers_as_then(settings, f"seq:{number}", each, number)
            answers_as_then(settings, each.identity[:9], each, number)
        assert open_release(settings)[1] == 2

        kept = maintain(settings)  # the live one, and two that can be gone back to
        assert len(kept) == 3 and 2 in kept
        made[5] = maker.make(5)
        promote(settings, made[5], at="2026-01-06T00:00:00+00:00")
        for number in (*kept, 5):
            answers_as_then(settings, str(number), made[number], number)
        (gone,) = {1, 3, 4} - kept
        for name in (str(gone), made[gone].identity, f"seq:{gone}"):
            with pytest.raises(InputError, match=f"release {gone} was dropped by maintenance on .* its documents and weights"):
                open_release(settings, name)
        assert [entry.number for entry in ledger.read(settings.ledger)] == [1, 2, 3, 4, 2, 2, 5]
