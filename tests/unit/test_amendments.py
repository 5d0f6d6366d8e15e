"""Releases that an erasure replaced: they keep their number and their place, and nobody is led to what they were before."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from flows import ledger
from flows.amendments import origin, replaced
from flows.ledger import Action, Draft, Entry
from flows.retention import check_kept, retired, standing
from flows.rollback import choose_target
from flows.succession import moved, promotion_of, succession
from tasks.errors import InputError

AT = "2026-11-21T10:00:00+00:00"


def identity(name: str) -> str:
    """`1a`: release 1 as it is after its first amendment."""
    return (name.encode().hex() * 32)[:64]


class Story:
    """A real ledger, told move by move."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "ledger"

    @property
    def entries(self) -> list[Entry]:
        return ledger.read(self.folder)

    def add(self, action: Action, release: str, candidate: str | None = None, **evidence: str) -> Entry:
        entries = self.entries
        moves = action != "erase" or ("amends" in evidence and candidate is None)
        version = len(entries) + 1 if moves else entries[-1].version
        draft = Draft(
            action=action, release=identity(release), number=int(release[0]), version=version,
            candidate=identity(candidate) if candidate else None, who="ada", why="because", at=AT,
            evidence={key: identity(name) for key, name in evidence.items()}, runs={},
        )  # fmt: skip
        return ledger.append(self.folder, draft, len(entries))


@pytest.fixture
def story(tmp_path: Path) -> Story:
    """1 and 2 were promoted; a tombstone withdrew the adapter of 2; then 1 and 2 were amended."""
    told = Story(tmp_path)
    told.add("promote", "1", golden="g1", report="r1")
    told.add("promote", "2", golden="g2", report="r2")
    told.add("erase", "2a", amends="2", golden="g2a", erasure="e")
    told.add("erase", "2a", candidate="1a", amends="1", golden="g1a")
    told.add("erase", "2b", amends="2a", golden="g2b")
    return told


def test_an_amended_release_is_found_by_its_old_number_and_the_form_before_is_refused(story: Story) -> None:
    entries = story.entries
    assert ledger.find(entries, "1") == (identity("1a"), 1) and ledger.find(entries, "2") == (identity("2b"), 2)
    assert set(retired(entries)) == {identity("1"), identity("2"), identity("2a")}
    with pytest.raises(InputError, match="this form of release 1 held what was erased on 2026-11-21"):
        check_kept(entries, ledger.find(entries, identity("1")))
    check_kept(entries, ledger.find(entries, "1"))


def test_over_several_erasures_the_last_form_stands_and_the_first_is_known(story: Story) -> None:
    assert replaced(story.entries) == {
        identity("1"): identity("1a"),
        identity("2"): identity("2b"),
        identity("2a"): identity("2b"),
    }
    assert origin(story.entries, identity("2b")) == identity("2") and origin(story.entries, identity("1")) == identity("1")


def test_amended_releases_stand_in_the_same_order_and_a_rollback_goes_to_the_one_before(story: Story) -> None:
    found = standing(story.entries, datetime.now(UTC))
    assert [each.found for each in found] == [(identity("2b"), 2), (identity("1a"), 1)]
    assert succession(story.entries).line == [(identity("1a"), 1), (identity("2b"), 2)]
    assert choose_target(story.entries, None) == (identity("1a"), 1)
    story.add("rollback", "1a")
    assert ledger.live(story.entries) is not None and set(succession(story.entries).withdrawn) == {identity("2b")}


def test_the_only_release_is_still_the_only_one_after_it_was_amended(tmp_path: Path) -> None:
    told = Story(tmp_path)
    told.add("promote", "1")
    told.add("erase", "1a", amends="1", golden="g")
    with pytest.raises(InputError, match="the only one that ever was live"):
        choose_target(told.entries, None)


def test_an_amended_release_rests_on_the_evidence_of_its_promotion_and_on_its_own_golden_answers(story: Story) -> None:
    found = promotion_of(story.entries, identity("1a"))
    assert (found.action, found.number, found.release) == ("promote", 1, identity("1a"))
    assert found.evidence == {"golden": identity("g1a"), "report": identity("r1")}
    assert promotion_of(story.entries, identity("2b")).evidence["golden"] == identity("g2b")
    assert promotion_of(story.entries, identity("2")).evidence["golden"] == identity("g2")
    assert moved(story.entries, identity("1a")).sequence == 4 and moved(story.entries, identity("2b")).sequence == 5


def test_a_release_that_was_withdrawn_stays_so_when_it_is_amended(tmp_path: Path) -> None:
    told = Story(tmp_path)
    told.add("promote", "1")
    told.add("promote", "2")
    told.add("rollback", "1")
    told.add("erase", "1", candidate="2a", amends="2", golden="g")
    assert identity("2a") in succession(told.entries).withdrawn
    assert succession(told.entries).line == [(identity("1"), 1)]


def test_an_erasure_makes_nothing_live_but_the_live_release_amended(tmp_path: Path) -> None:
    told = Story(tmp_path)
    told.add("promote", "1")
    told.add("promote", "2")
    for release, evidence in (("3", {}), ("1", {}), ("2a", {"amends": "1"})):
        with pytest.raises(InputError, match="an erasure leaves live what was"):
            told.add("erase", release, **evidence)
    told.add("erase", "2", erasure="e")
    assert ledger.live(told.entries) is not None and told.entries[-1].release == identity("2")
