"""Flow `maintain`: releases that nobody will go back to are dropped, and what only they needed; what stays is read again."""

from typing import Any

from prefect import flow, task

from flows import housekeeping, ledger, purge, registry
from flows.amendments import replaced
from flows.ledger import Entry, Found
from flows.presenting import conclude
from flows.retention import DAYS, KEEP, Choice
from flows.session import Session, say, session
from tasks.failpoints import failpoint


@flow(name="maintain", flow_run_name="maintain")
def maintain(keep: int = KEEP, days: int = DAYS) -> dict[str, Any]:
    """Keep the `keep` newest releases and those that were live in the last `days` days; never fewer than the live one and two
    that it can be rolled back to."""
    with session("maintain") as opened:
        before = housekeeping.sizes(opened.settings)
        choice, broken = settle(opened, keep, days)
        retire(opened, choice, f"not among the {keep} newest, not live for {days} days")
        erased = finish_erasures(opened)
        kept = as_amended(opened, choice.kept)
        forgotten = free(opened, kept, bool(broken))
        check(opened, kept, broken)
        result = report(choice, broken, forgotten, before, housekeeping.sizes(opened.settings))
        result = with_erasures(result, erased)
        say(result["says"])
        conclude(opened, f"{len(choice.dropped)} releases dropped", {"outcome": "maintained", "dropped": str(result["dropped"])})
        return result


@task(task_run_name="finish erasures")
def finish_erasures(opened: Session) -> dict[str, Any]:
    """What a `tandem erase --later`, or one that was interrupted, still has to destroy."""
    return purge.finish(opened.settings, opened.run_id)


def with_erasures(result: dict[str, Any], erased: dict[str, Any]) -> dict[str, Any]:
    """The report, with what the erasures that were finished changed, and with what of them is still found somewhere."""
    hits = [f"erased, and still in {hit['where']}: {hit['what']}" for hit in erased["hits"]]
    lines = [f"erased for good: {listed(erased['amended'])} amended"] if erased["amended"] else []
    says = "\n".join([result["says"], *lines, *hits])
    return result | {"erased": erased, "findings": [*result["findings"], *hits], "says": says}


def as_amended(opened: Session, kept: list[Found]) -> list[Found]:
    stands = replaced(ledger.read(opened.settings.ledger))
    return [Found(stands.get(found.release, found.release), found.number) for found in kept]


@task(task_run_name="choose releases")
def settle(opened: Session, keep: int, days: int) -> tuple[Choice, dict[int, str]]:
    return housekeeping.settle(opened.settings, keep, days)


@task(task_run_name="record what is dropped")
def retire(opened: Session, choice: Choice, why: str) -> Entry | None:
    """The ledger entry; the registry's versions say so as well, for those who look there."""
    settings = opened.settings
    entry = housekeeping.retire(settings, choice, why, opened.run_id)
    failpoint("maintain.before-tags")
    for found in choice.dropped:
        version = registry.registered_version(settings, found.release)
        if version is not None and entry is not None:
            registry.tag_version(settings, version, {"retired": entry.at})
    return entry


@task(task_run_name="free space")
def free(opened: Session, kept: list[Found], broken: bool) -> int:
    forgotten = housekeeping.free_index(opened.settings, kept, broken)
    housekeeping.free_store(opened.settings, kept)
    housekeeping.free_scratch(opened.settings, kept)
    return forgotten


@task(task_run_name="read what stays")
def check(opened: Session, kept: list[Found], broken: dict[int, str]) -> None:
    housekeeping.check(opened.settings, kept, broken)


def report(
    choice: Choice, broken: dict[int, str], forgotten: int, before: dict[str, int], after: dict[str, int]
) -> dict[str, Any]:
    places = [f"{name} {megabytes(before[name])} -> {megabytes(after[name])}" for name in before]
    kept, dropped = ([found.number for found in side] for side in choice)
    findings = [f"release {number} does not read: {fault}" for number, fault in broken.items()]
    said = [f"kept {listed(kept)}, dropped {listed(dropped)}, {forgotten} vectors forgotten", ", ".join(places), *findings]
    return {
        "kept": kept,
        "dropped": dropped,
        "findings": findings,
        "vectors_forgotten": forgotten,
        "bytes": {name: [before[name], after[name]] for name in before},
        "says": "\n".join(said),
    }


def listed(numbers: list[int]) -> str:
    return f"{'release' if len(numbers) == 1 else 'releases'} {', '.join(map(str, sorted(numbers)))}" if numbers else "no release"


def megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
