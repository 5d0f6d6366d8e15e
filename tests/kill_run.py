"""kill -9 at random times: `python tests/kill_run.py [KILLS] [SEED]` (make kill-run), for docs/promises.md.

One clone lives through all of it: ingests, refreshes, rollbacks and maintenances, each in a process of its own that is killed at
a random moment, drawn over a little more than what such a run takes here. After every kill the live release is asked its golden
questions and `tandem doctor` looks at everything; the next run starts on what was left. Torch-free: see tests/unit/standins.py.
"""

import json
import math
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE), str(HERE / "unit")]

import standins  # noqa: E402
from dying import CHILDREN, PATIENCE  # noqa: E402
from fault_cases import maintain, make_world, refresh  # noqa: E402

from flows import doctor, ledger, tracking  # noqa: E402
from flows import rollback as rolling  # noqa: E402
from flows.settings import Settings  # noqa: E402
from tasks.errors import InputError  # noqa: E402

RUNS = {"ingest and refresh": 7, "refresh": 2, "ingest": 2, "rollback": 2, "maintain": 2}  # by weight
SURVIVED = 3  # exit code of a run that had nothing to do, such as a rollback of the only release
THOROUGH = 10  # every so many kills the next run goes to its end, and doctor --strict has to find nothing after it
SAID = "said.txt"


def live_and_die(clone: str, run: str, edition: int, begun: Any) -> None:
    """In a process of its own."""
    try:
        os.chdir(clone)
        standins.enter(Path(clone))
        begun.set()
        act(run, edition)
    except InputError as error:
        sys.exit(SURVIVED if "go back" in str(error) or "no release stands before" in str(error) else told())
    except BaseException:
        sys.exit(told())


def told() -> int:
    Path(SAID).write_text(traceback.format_exc())
    return 1


def act(run: str, edition: int) -> None:
    if "ingest" in run:
        if not Path(f"editions/{edition}").exists():
            standins.write_corpus(Path(f"editions/{edition}"), edition)
        standins.ingest(edition)
    if "refresh" in run:
        refresh()
    if run == "rollback":
        rolling.rollback(reason="a try")  # type: ignore[operator]
    if run == "maintain":
        maintain()


class Life:
    """Of one clone; `seconds` by run: how long it took the last time that nobody killed it."""

    def __init__(self, clone: Path, settings: Settings, seed: int) -> None:
        self.clone, self.settings, self.chance = clone, settings, random.Random(seed)
        self.edition, self.kills, self.seconds = 6, Counter[str](), dict[str, float]()
        self.findings, self.failures = Counter[str](), list[str]()

    def measure(self) -> None:
        """How long each run takes here, now, when nobody kills it."""
        for run in RUNS:
            self.edition += "ingest" in run
            code, self.seconds[run] = self.process(run, kill=False)
            self.fail_unless(code in (0, SURVIVED), f"{run} ended with {code}: {self.said()}")

    def once(self) -> bool:
        """Whether it was killed, rather than finished."""
        run = self.chance.choices(list(RUNS), list(RUNS.values()))[0]
        self.edition += "ingest" in run
        code, seconds = self.process(run, kill=True)
        if code == -signal.SIGKILL:
            self.kills[run] += 1
            self.look(run)
        else:
            self.seconds[run] = seconds
            self.fail_unless(code in (0, SURVIVED), f"{run} ended with {code}: {self.said()}")
        return code == -signal.SIGKILL

    def process(self, run: str, kill: bool) -> tuple[int, float]:
        begun = CHILDREN.Event()
        child = CHILDREN.Process(target=live_and_die, args=(str(self.clone), run, self.edition, begun))
        child.start()
        begun.wait(PATIENCE)
        started = time.monotonic()
        child.join(self.chance.uniform(0, 1.1 * self.seconds[run]) if kill else 10 * PATIENCE)
        if child.is_alive():
            os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        return int(child.exitcode or 0), time.monotonic() - started

    def look(self, after: str) -> None:
        """The oracle of every kill: one whole release answers, and nothing needs a backup."""
        try:
            standins.check_whole(self.settings)
            found = doctor.examine(self.settings)
        except BaseException:
            self.failures.append(f"after {after}: {traceback.format_exc()}")
            return
        for finding in found:
            self.findings[kind(finding.what)] += 1
            self.fail_unless(finding.minor or "backup" not in finding.mend, f"after {after}: {finding}")

    def recover(self) -> None:
        """The next run, to its end; then nothing is left to find, and every kept release answers as itself."""
        code, _ = self.process("refresh", kill=False)
        self.fail_unless(code == 0, f"the run after a kill ended with {code}: {self.said()}")
        if doctor.examine(self.settings, strict=True):
            doctor.mend(self.settings)
        left = doctor.examine(self.settings, strict=True)
        self.fail_unless(not left, f"doctor --strict after a whole run and --mend: {left}")
        for found in doctor.kept(ledger.read(self.settings.ledger)):
            standins.check_whole(self.settings, str(found.number))

    def fail_unless(self, good: bool, what: str) -> None:
        if not good:
            self.failures.append(what)
            print(what, flush=True)

    def said(self) -> str:
        path = self.clone / SAID
        return path.read_text() if path.exists() else ""


def kind(what: str) -> str:
    """Without the ids in it, so that equal findings are counted together."""
    return " ".join(word for word in what.split() if not any(letter.isdigit() for letter in word))[:100]


def main() -> None:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(10**6)
    warnings.simplefilter("ignore")
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tracking.client(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
        clone = make_world(folder, folder / "mlflow.db")
        os.chdir(clone)
        tracking.client.cache_clear()
        life = Life(clone, standins.enter(clone), seed)
        life.measure()
        while life.kills.total() < wanted and not life.failures:
            killed = life.once()
            if killed and life.kills.total() % THOROUGH == 0:
                life.recover()
                print(f"{life.kills.total()} kills, {time.monotonic() - began:.0f} s, {len(life.failures)} failures", flush=True)
        entries = len(ledger.read(life.settings.ledger))
        os.chdir(HERE)
    report(life, seed, entries, time.monotonic() - began)


def report(life: Life, seed: int, entries: int, seconds: float) -> None:
    kills = life.kills.total()
    upper = 1 - math.pow(0.05, 1 / kills) if not life.failures else None  # of a share of which 0 were seen, at 95 % confidence
    print(json.dumps({
        "seed": seed, "kills": kills, "by run": dict(life.kills), "failures": life.failures, "ledger entries": entries,
        "at 95 % confidence at most": upper, "findings on the way": dict(life.findings), "seconds": round(seconds),
    }, indent=2))  # fmt: skip
    sys.exit(1 if life.failures else 0)


if __name__ == "__main__":
    main()
