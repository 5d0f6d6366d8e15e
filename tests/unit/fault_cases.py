"""Every failpoint, what runs when it is passed, and what has to be true afterwards: the same for a kill, an error and a stop."""

import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import standins
import tiny
from dying import CHILDREN, returncode_of
from workspace import settings_of, write_adapter

from flows import doctor, ledger, pipeline, registry
from flows.doctor import kept
from flows.finding import Finding
from flows.session import session
from flows.settings import Settings
from tasks.failpoints import VARIABLE, declared
from tasks.records import Record, file_digest, folder_digest, read_jsonl, write_jsonl
from tasks.tables import connect, open_table, rows_digest, table_names, tags

OF_AN_ERASURE = ("erase", "evidence", "purge", "takeout")  # killed with real releases: tests/pipeline/test_erase.py
DECLARED = [*declared(tiny.ROOT / "flows"), *declared(tiny.ROOT / "tasks")]
FAILPOINTS = sorted(name for name in DECLARED if not name.startswith(OF_AN_ERASURE))
SAID = "said.txt"  # beside a clone: the traceback of a process that checked it


# --- What runs


def refresh() -> None:
    from flows import refresh as module

    module.refresh()  # type: ignore[operator]


def rollback() -> None:
    """Asked once: who finds the earlier release live does not go back once more."""
    from flows import rollback as module

    if number_live() == 4:
        module.rollback(reason="the fourth edition is wrong")  # type: ignore[operator]
    else:
        glance()


def maintain() -> None:
    from flows import maintain as module

    module.maintain(keep=1, days=0)  # type: ignore[operator]


def glance() -> None:
    """What any flow does first."""
    with session("maintain"):
        pass


RUNS: dict[str, Callable[[], None]] = {
    "ingest": lambda: standins.ingest(6),
    "refresh": refresh,
    "refused refresh": refresh,
    "release": lambda: standins.retrain(settings_of(Path.cwd())),
    "rollback": rollback,
    "maintain": maintain,
}
# The release that may be live meanwhile, and the last of them at the end
LIVE = {"ingest": (4,), "refresh": (4, 5), "release": (4, 5), "refused refresh": (4,), "rollback": (4, 3), "maintain": (4,)}
BY_MODULE = {"corpus": "ingest", "housekeeping": "maintain", "maintain": "maintain", "upkeep": "maintain", "rollback": "rollback"}
BY_NAME = {
    "promotion.before-refusal": "refused refresh", "promotion.after-refusal": "refused refresh",
    "store.before-copy": "release", "store.before-rename": "release",
}  # fmt: skip


def run_of(name: str) -> str:
    """Which run passes a failpoint. One that is not passed by it ends no process, and the tests fail: name another run here."""
    return BY_NAME.get(name, BY_MODULE.get(name.partition(".")[0], "refresh"))


# --- What has to be so that it is passed at all


def ask_worse(settings: Settings) -> None:
    """And a floor that what is then evaluated does not reach."""
    questions = settings.root / "data/raw/questions.jsonl"
    write_jsonl(questions, [record | {"asked": standins.WORSE} for record in read_jsonl(questions)])
    tiny.change_params(settings.root, "gate.yaml", {"floors": {"fact": 0.9}})


def ask_as_before(settings: Settings) -> None:
    """The champion is then judged by what was sealed of it, and not opened."""
    questions = settings.root / "data/raw/questions.jsonl"
    write_jsonl(questions, [record | {"asked": "as before"} for record in read_jsonl(questions)])


def damage_the_sealed_base(settings: Settings) -> None:
    ask_as_before(settings)
    sealed = settings.store / "objects" / folder_digest(settings.root / "data/models/base") / "model.safetensors"
    sealed.chmod(0o600)
    sealed.write_bytes(b"torn")


def lose_dvcs_adapter(settings: Settings) -> None:
    for listing in (settings.root / ".dvc/cache/files/md5").glob("*/*.dir"):
        if b"adapter_model" in listing.read_bytes():
            listing.unlink()
    write_adapter(settings.root, 99.0)


TWEAKS = {
    "promotion.before-refusal": ask_worse,
    "promotion.after-refusal": ask_worse,
    "store.between-renames": damage_the_sealed_base,
    "store.before-copy": lambda settings: write_adapter(settings.root, 99.0),
    "store.before-rename": lambda settings: write_adapter(settings.root, 99.0),
    "refreshing.before-copy": lose_dvcs_adapter,
    "pipeline.before-lock": lambda settings: write_adapter(settings.root, 99.0),  # another one than is live
}


# --- In processes of their own


def fail_at(clone: str, name: str, setting: str) -> None:
    os.chdir(clone)
    settings = standins.enter(Path(clone))
    TWEAKS.get(name, standins.nothing)(settings)
    os.environ[VARIABLE] = setting
    RUNS[run_of(name)]()


def check_aftermath(clone: str, name: str) -> None:
    """Whole, mended, finished, and at rest; SAID tells of what is not."""
    try:
        os.chdir(clone)
        oracle(standins.enter(Path(clone)), run_of(name))
    except BaseException:
        Path(clone).with_name(SAID).write_text(traceback.format_exc())
        raise


def oracle(settings: Settings, run: str) -> None:
    meanwhile, at_the_end = LIVE[run], LIVE[run][-1]
    if run_is_whole(settings, run):
        assert standins.check_whole(settings)["number"] in meanwhile
    for finding in doctor.examine(settings, strict=True):
        assert finding.minor or finding.mend.startswith("tandem "), finding
    RUNS[run]()
    assert standins.check_whole(settings)["number"] == at_the_end
    if findings(settings):
        doctor.mend(settings)
    assert findings(settings) == []
    before = state(settings)
    RUNS[run]()
    after = state(settings)
    changed = {part: (before[part], after[part]) for part in after if after[part] != before[part]}
    assert not changed, changed
    for found in kept(ledger.read(settings.ledger)):
        assert standins.check_whole(settings, str(found.number))["number"] == found.number


def findings(settings: Settings) -> list[Finding]:
    """But for what a test itself took out of DVC's cache: there is no remote to fetch it from."""
    return [finding for finding in doctor.examine(settings, strict=True) if finding.where != "DVC's cache" or not finding.minor]


def run_is_whole(settings: Settings, run: str) -> bool:
    """Not where a test damaged what is live, which is refused until the next run has sealed it again."""
    sealed = settings.store / "objects" / folder_digest(settings.root / "data/models/base") / "model.safetensors"
    return sealed.exists() and sealed.read_bytes() != b"torn"


def state(settings: Settings) -> Record:
    """All that a second run must leave as it is. (A run of its own in MLflow it always has.)"""
    database = connect(settings.index_uri)
    tables: dict[str, Any] = {name: open_table(database, name) for name in table_names(database)}
    rows = {}
    for name, table in tables.items():
        for tag in tags(table):
            table.checkout(tag)
            rows[name, tag] = rows_digest(table)
    data = settings.root / "data"
    return {
        "ledger": {path.name: file_digest(path) for path in settings.ledger.iterdir()},
        "store": sorted(path.relative_to(settings.store).as_posix() for path in settings.store.rglob("*")),
        "registry": registry.versions(settings),
        "alias": registry.champion_version(settings),
        "rows": rows,
        "raw": folder_digest(data / "raw"),
        "pointer": file_digest(data / "raw.dvc"),
        "lock": pipeline.read_lock(settings.root),
        "left": [path.name for path in data.glob(".raw.*")],
    }


def number_live() -> int:
    entry = ledger.live(ledger.read(settings_of(Path.cwd()).ledger))
    assert entry is not None and entry.number is not None
    return entry.number


# --- From the test


def make_world(folder: Path, database: Path) -> Path:
    assert returncode_of(standins.write_world, folder / "world", database) == 0
    return folder / "world"


def copy_world(world: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return tiny.copy_clone(world, folder / "clone")


def aftermath(clone: Path, name: str) -> None:
    done = returncode_of(check_aftermath, str(clone), name)
    said = clone.with_name(SAID)
    assert done == 0, said.read_text() if said.exists() else f"{name}: the check of what it left ended with {done}"


def started(clone: Path, name: str, action: str) -> Any:
    """A process on its way to the failpoint."""
    child = CHILDREN.Process(target=fail_at, args=(str(clone), name, f"{name}:{action}"))
    child.start()
    return child
