from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.ledger import Draft, Entry, Found, append, number_for, read, seal
from flows.retention import PROVEN, check_kept, choose, retired, standing
from tasks.errors import InputError

START = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = "abcdef"


def release(name: str) -> str:
    return name * 64


def draft(entries: list[Entry], action: str, name: str | None, day: int, **more: Any) -> Draft:
    """A promotion or rollback of `name`, or something that leaves live what is."""
    live = entries[-1] if entries else None
    if name is None:
        identity, number = (live.release, live.number) if live else (None, None)
    else:
        identity, number = release(name), number_for(entries, release(name))
    fields = {
        "action": action, "release": identity, "number": number, "version": number, "candidate": None, "who": "ada", "why": "so",
        "at": (START + timedelta(days=day)).isoformat(timespec="seconds"), "evidence": {}, "runs": {},
    }  # fmt: skip
    return Draft.model_validate(fields | more)


def history(moves: list[tuple[str, str | None, int]], **more: Any) -> list[Entry]:
    entries: list[Entry] = []
    for action, name, day in moves:
        entries.append(seal(draft(entries, action, name, day, **more), len(entries) + 1, "0" * 64))
    return entries


def names(found: list[Found]) -> str:
    return "".join(each.release[0] for each in found)


def decided(entries: list[Entry], keep: int, days: int, today: int, broken: str = "") -> tuple[str, str]:
    choice = choose(entries, keep, days, START + timedelta(days=today), lambda found: found.release[0] not in broken)
    return names(choice.kept), names(choice.dropped)


DAILY: list[tuple[str, str | None, int]] = [("promote", name, 10 * day) for day, name in enumerate("abcdef")]


def test_the_newest_stay_and_never_fewer_than_the_live_one_and_two_to_go_back_to() -> None:
    entries = history(DAILY)
    assert decided(entries, 4, 0, 100) == ("fedc", "ba")
    assert decided(entries, 1, 0, 100) == ("fed", "cba")
    assert decided(entries, 10, 0, 100) == ("fedcba", "")


def test_a_release_stays_for_some_days_after_it_was_live_last() -> None:
    """c was live until day 30, when d came."""
    assert decided(history(DAILY), 1, 71, 100) == ("fedc", "ba")
    assert decided(history(DAILY), 1, 70, 100) == ("fed", "cba")


def test_a_wrong_clock_drops_nothing_too_soon_but_by_as_much_as_it_is_ahead() -> None:
    """F40. c was live until day 30: with 71 days it may go on day 101. The newest stay by their order alone."""
    assert decided(history(DAILY), 1, 71, 100 - 1) == decided(history(DAILY), 1, 71, 100) == ("fedc", "ba")
    assert decided(history(DAILY), 1, 71, 100 + 1) == ("fed", "cba")
    set_back = history([*DAILY[:4], ("promote", "e", -300), ("promote", "f", -299)])
    assert decided(set_back, 1, 0, -298) == ("fedcba", ""), "what seems to have been live until a day to come stays"
    assert decided(history(DAILY), 4, 30, 36_500) == ("fedc", "ba")


def test_a_release_that_does_not_read_is_no_place_to_go_back_to() -> None:
    assert decided(history(DAILY), 1, 0, 100, broken="ec") == ("fedcb", "a")
    assert decided(history(DAILY), 1, 0, 100, broken="abcde") == ("fedcba", "")


def test_after_a_rollback_what_was_left_is_the_first_to_go_back_to() -> None:
    entries = history([*DAILY, ("rollback", "b", 60), ("refuse", None, 61)])
    assert decided(entries, 1, 0, 100) == ("bfe", "dca")


def test_a_dropped_release_is_refused_with_the_day_until_it_is_promoted_again() -> None:
    entries = history(DAILY)
    entries.append(seal(draft(entries, "retire", None, 70, evidence={"release 1": release("a")}), 7, "0" * 64))
    with pytest.raises(InputError, match=r"release 1 was dropped by maintenance on 2026-03-12 \(ledger entry 7: so\)"):
        check_kept(entries, Found(release("a"), 1))
    check_kept(entries, Found(release("b"), 2))
    assert names([each.found for each in standing(entries, START)]) == "fedcb"
    entries.append(seal(draft(entries, "promote", "a", 80), 8, "0" * 64))
    check_kept(entries, Found(release("a"), 1))
    assert retired(entries) == {}
    assert decided(entries, 1, 0, 100) == ("afe", "dcb")


def test_a_retirement_is_an_entry_that_leaves_live_what_is_and_names_what_it_drops(tmp_path: Any) -> None:
    for action, name, day in DAILY[:3]:
        append(tmp_path, draft(read(tmp_path), action, name, day), day // 10)
    entries = read(tmp_path)
    for wrong in ({"release 3": release("c")}, {"x": release("9")}):  # the live one; one that never was
        with pytest.raises(InputError, match="not live now"):
            append(tmp_path, draft(entries, "retire", None, 40, evidence=wrong), 3)
    with pytest.raises(InputError, match="a retirement carries"):
        append(tmp_path, draft(entries, "retire", "a", 40, evidence={"release 1": release("a")}), 3)
    append(tmp_path, draft(entries, "retire", None, 40, evidence={"release 1": release("a")}), 3)
    entries = read(tmp_path)
    assert (entries[-1].action, entries[-1].release, entries[-1].number) == ("retire", release("c"), 3)


@pytest.mark.parametrize(("keep", "days"), [(0, 1), (-1, 0), (1, -1)])
def test_a_number_that_keeps_nothing_is_refused(keep: int, days: int) -> None:
    with pytest.raises(InputError, match="keep at least one release"):
        decided(history(DAILY), keep, days, 100)


MOVES = st.lists(st.tuples(st.booleans(), st.sampled_from(NAMES)), min_size=1, max_size=20)


@given(moves=MOVES, keep=st.integers(1, 9), days=st.integers(0, 12), broken=st.text(NAMES, max_size=6))
def test_whatever_happened_the_live_one_and_two_that_read_are_kept_and_every_release_is_kept_or_dropped(
    moves: list[tuple[bool, str]], keep: int, days: int, broken: str
) -> None:
    seen: set[str] = set()
    made: list[tuple[str, str | None, int]] = []
    for day, (back, name) in enumerate(moves):
        made.append(("rollback" if back and name in seen else "promote", name, day))
        seen.add(name)
    kept, dropped = decided(history(made), keep, days, len(moves), broken)
    live = moves[-1][1]
    assert kept[0] == live and set(kept) | set(dropped) == seen and not set(kept) & set(dropped)
    others = [name for name in seen if name not in broken and name != live]
    assert len([name for name in kept[1:] if name not in broken]) >= min(PROVEN, len(others))
    assert len(kept) >= min(keep, len(seen))
    before = [name for _, name in moves if name != live]
    assert not before or before[-1] in kept  # where `tandem rollback` without --to goes
