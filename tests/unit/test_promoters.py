"""Promoters at once and promoters that are held up, over one ledger and one real registry: one commit per entry, and nobody is
ever led to a release that was not live at that moment."""

import os
import re
import shutil
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from dying import CHILDREN, PATIENCE
from workspace import candidate_of, judged, settings_of, write_adapter, write_workspace

from flows import ledger, opening, promotion, registry
from flows.ledger import Entry
from flows.promotion import Judgement
from flows.settings import Settings
from flows.store import seal_file
from flows.tracking import client
from tasks.errors import TandemError
from tasks.failpoints import PASSAGES, VARIABLE
from tasks.manifest import load_release, release_id, render

CONFLICT = r"conflict: the ledger is now at entry (\d+) \(you judged against (\d+)\); .*run the same command again"


@dataclass(frozen=True)
class Place:
    """Judgements on releases that are sealed and registered, none of them live yet."""

    root: Path
    judgements: list[Judgement]

    @property
    def settings(self) -> Settings:
        return settings_of(self.root)


@pytest.fixture
def place(tmp_path: Path, mlflow_database: Path) -> Place:
    root = tmp_path / "clone"
    root.mkdir()
    settings = write_workspace(root)
    settings.home.mkdir(exist_ok=True)
    shutil.copyfile(mlflow_database, settings.home / "mlflow.db")
    registry.make_registered_model(settings)
    return Place(root, [judgement(settings, number) for number in range(1, 9)])


def judgement(settings: Settings, number: int) -> Judgement:
    write_adapter(settings.root, float(number))
    made = judged(settings)
    seal_file(settings.store, render(made.release).encode())
    tags = {registry.RELEASE_TAG: made.release_id}
    client(settings.tracking_uri).create_model_version("assistant", str(candidate_of(settings.root).adapter), tags=tags)
    return made


def promote(settings: Settings, judgement: Judgement, entries: list[Entry], version: int) -> Entry:
    """What a flow does once its candidate is verified and registered."""
    entry = promotion.commit(settings, replace(judgement, entries=entries), version, {}, {})
    promotion.follow_ledger(settings)
    return entry


def promoter(root: Path, judgement: Judgement, version: int, rounds: int, barrier: Any, results: Any) -> None:
    """Round after round: judge against what stands, then promote the moment the others do."""
    settings = settings_of(root)
    for number in range(rounds):
        entries = ledger.read(settings.ledger)
        barrier.wait(PATIENCE)
        try:
            outcome: Any = promote(settings, judgement, entries, version).sequence
        except TandemError as error:
            outcome = (error.exit_code, str(error))
        barrier.wait(PATIENCE)  # whoever won has moved the alias
        results.put(((number, version), (outcome, registry.champion_version(settings))))
        barrier.wait(PATIENCE)


@pytest.mark.parametrize(
    ("promoters", "rounds"),
    [
        (2, 5),
        pytest.param(2, 200, marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
        pytest.param(8, 25, marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_of_promoters_at_once_one_commits_the_others_are_told_and_nobody_is_led_to_what_is_not_live(
    promoters: int, rounds: int, place: Place
) -> None:
    """F03. The alias stands where the ledger says after every round."""
    barrier, results = CHILDREN.Barrier(promoters), CHILDREN.Queue()
    given = [(place.root, judgement, number, rounds) for number, judgement in enumerate(place.judgements[:promoters], start=1)]
    workers = [CHILDREN.Process(target=promoter, args=(*each, barrier, results)) for each in given]
    with led_by_the_alias(place) as seen:
        for worker in workers:
            worker.start()
        told = dict(results.get(timeout=PATIENCE) for _ in range(promoters * rounds))
        for worker in workers:
            worker.join(PATIENCE)
    entries = ledger.read(place.settings.ledger)
    assert [entry.sequence for entry in entries] == list(range(1, rounds + 1))
    for number, entry in enumerate(entries):
        outcomes = {version: outcome for (at, version), (outcome, _) in told.items() if at == number}
        assert outcomes.pop(int(entry.version or 0)) == entry.sequence
        assert len(outcomes) == promoters - 1 and all(lost(said, entry.sequence) for said in outcomes.values()), outcomes
        assert {alias for (at, _), (_, alias) in told.items() if at == number} == {entry.version}
    assert seen and not any(each.stale for each in seen)
    found = {"promoters": promoters, "rounds": rounds, "commits": len(entries), "conflicts": promoters * rounds - len(entries)}
    print(found | counts(seen))


def lost(said: Any, sequence: int) -> bool:
    """With exit code 1 and both entries by number."""
    if not isinstance(said, tuple):
        return False
    match = re.fullmatch(CONFLICT, said[1])
    return said[0] == 1 and match is not None and (int(match[1]), int(match[2])) == (sequence, sequence - 1)


# --- Whoever comes by the alias


@dataclass(frozen=True)
class Look:
    """What somebody got, what was live at some moment of it, and whether the alias moved in between: MLflow then has led to the
    release before, of which nobody can say any more whether it was asked for by number."""

    got: str
    live: frozenset[str]
    before: str
    moved: bool

    @property
    def stale(self) -> bool:
        return self.got not in self.live and not self.caught

    @property
    def caught(self) -> bool:
        return self.got not in self.live and self.moved and self.got == self.before


@contextmanager
def led_by_the_alias(place: Place) -> Iterator[list[Look]]:
    """What MLflow's users get meanwhile, again and again."""
    seen: list[Look] = []
    stop = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "open_manifest", lambda settings, text: release_id(load_release(text)))  # which, not the weights
        reader = threading.Thread(target=look, args=(place.settings, seen, stop))
        reader.start()
        try:
            yield seen
        finally:
            stop.set()
            reader.join()


def look(settings: Settings, seen: list[Look], stop: threading.Event) -> None:
    releases = {each.number: each.release for each in registry.versions(settings)}
    while not stop.is_set():
        before, stands = ledger.read(settings.ledger), registry.champion_version(settings)
        if before and stands is not None:
            got: Any = opening.open_version(settings, opening.manifest_text(settings, releases[stands]))
            moved = registry.champion_version(settings) != stands
            live = frozenset(str(entry.release) for entry in ledger.read(settings.ledger)[len(before) - 1 :])
            seen.append(Look(got, live, str(before[-2].release) if len(before) > 1 else "", moved))


def counts(seen: list[Look]) -> dict[str, int]:
    return {"led by the alias": len(seen), "stale": sum(each.stale for each in seen), "caught": sum(each.caught for each in seen)}


# --- A promoter that is held up

# What it says: nothing, as it saw that another entry is newer; or that it wrote what was past, saw it, and put it right.
REPAIRED = "alias champion moved to version 1; alias champion moved to version 2"
SAYS = {"promotion.before-alias": None, "promotion.at-alias": REPAIRED}


def held_up(root: Path, judgement: Judgement, rounds: int, failpoint: str, told: Any) -> None:
    """Stops itself between the ledger entry and the alias, in every round."""
    settings = settings_of(root)
    for _ in range(rounds):
        PASSAGES.clear()
        os.environ[VARIABLE] = f"{failpoint}:stop"
        entry = promotion.commit(settings, replace(judgement, entries=ledger.read(settings.ledger)), 1, {}, {})
        told.send((entry.sequence, promotion.follow_ledger(settings)))
        os.environ.pop(VARIABLE)
        os.kill(os.getpid(), signal.SIGSTOP)  # until the other has looked


@pytest.mark.parametrize("failpoint", SAYS)
@pytest.mark.parametrize("rounds", [2, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_a_promoter_that_is_held_up_on_the_way_to_the_alias_leaves_it_at_what_became_live_meanwhile(
    rounds: int, failpoint: str, place: Place
) -> None:
    """F04. Our locks are the kernel's and have no lease that could run out; another clone's promoter is what can come between."""
    tells, told = CHILDREN.Pipe(duplex=False)
    child = CHILDREN.Process(target=held_up, args=(place.root, place.judgements[0], rounds, failpoint, told))
    child.start()
    try:
        with led_by_the_alias(place) as seen:
            took = [round_of(place, child, number, tells, SAYS[failpoint]) for number in range(rounds)]
        child.join(PATIENCE)
        assert child.exitcode == 0
    finally:
        child.kill()
    assert len(seen) >= rounds and not any(each.stale for each in seen)
    print({"rounds": rounds, "failpoint": failpoint, "settled_ms": round(1000 * statistics.median(took))} | counts(seen))


def round_of(place: Place, child: Any, number: int, tells: Any, says: str | None) -> float:
    """Promote another release while the child stands still, then let it go on; seconds until it has put the alias right."""
    until_stopped(child.pid)
    entries = ledger.read(place.settings.ledger)
    assert len(entries) == 2 * number + 1 and entries[-1].version == 1
    promote(place.settings, place.judgements[1], entries, 2)
    assert registry.champion_version(place.settings) == 2
    resumed = time.monotonic()
    os.kill(child.pid, signal.SIGCONT)
    assert tells.poll(PATIENCE)
    assert tells.recv() == (2 * number + 1, says)
    settled = time.monotonic() - resumed
    assert registry.champion_version(place.settings) == 2
    until_stopped(child.pid)
    os.kill(child.pid, signal.SIGCONT)
    return settled


def until_stopped(pid: int) -> None:
    import psutil

    deadline = time.monotonic() + PATIENCE
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline, "the promoter never stopped"
        time.sleep(0.01)


def test_an_alias_that_others_keep_moving_is_given_up_on_with_what_mends_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = place.settings
    with tiny.inside(place.root):
        monkeypatch.setattr(registry, "move_alias", lambda settings, version: None)
        with pytest.raises(TandemError, match=r"did not stay where it was put, 10 times; run: tandem doctor --mend"):
            promote(settings, place.judgements[0], [], 1)
