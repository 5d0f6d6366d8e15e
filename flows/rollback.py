"""Flow `rollback`: an earlier release is live again, documents and weights together, as a new ledger entry with old contents."""

from contextlib import suppress
from typing import Any

from prefect import flow, task

from flows import doctor, erasures, housekeeping, ledger, promotion, registration
from flows.ledger import Draft, Entry, Found
from flows.opening import live_entry
from flows.presenting import conclude
from flows.retention import check_kept, retired
from flows.session import Session, say, session
from flows.settings import Settings
from flows.succession import promotion_of, succession
from tasks.errors import InputError, IntegrityError
from tasks.failpoints import failpoint
from tasks.manifest import short
from tasks.pairs import listing


@flow(name="rollback", flow_run_name="rollback")
def rollback(to: str | None = None, reason: str = "") -> dict[str, Any]:
    with session("rollback") as opened:
        entries = ledger.read(opened.settings.ledger)
        target = choose_target(entries, to)
        check_reason(reason)
        prove(opened, target, entries)
        entry = record(opened, target, entries, reason)
        conclude(opened, f"release {entry.number} live again", {"outcome": "rolled back", "release": str(entry.number)})
        return {"outcome": "rolled back", "number": entry.number, "release": entry.release, "sequence": entry.sequence}


def choose_target(entries: list[Entry], to: str | None) -> Found:
    """The named release, or the one that the present one followed: never one that was itself rolled back from, or dropped."""
    now = live_entry(entries)
    if to is not None:
        target = ledger.find(entries, to)
        check_kept(entries, target)
        if target.release == now.release:
            raise InputError(f"release {target.number} is live already; nothing to roll back")
        return target
    if len({each.number for each in ledger.known(entries)}) == 1:
        raise InputError(f"release {now.number} is the only one that ever was live; there is nothing to go back to")
    gone = retired(entries)
    before = [found for found in succession(entries).line[:-1] if found.release not in gone]
    if not before:
        raise InputError(
            f"no release stands before release {now.number} that was not rolled back from, or dropped; name the one that you "
            "want: tandem rollback --to N --reason ... (tandem history lists them)"
        )
    return before[-1]


def check_reason(reason: str) -> None:
    if not reason.strip():
        raise InputError('a rollback needs a reason for those who come later: --reason "prices of May were wrong"')


@task(task_run_name="verify")
def prove(opened: Session, target: Found, entries: list[Entry]) -> None:
    """A release that cannot answer today is no place to go back to. Raises IntegrityError with all that is wrong with it and with
    one that can, InputError where its adapter knew what was erased since."""
    settings = opened.settings
    try:
        erasures.check_unlearnt(erasures.standing(settings, entries), target, housekeeping.pinned(settings, target))
        promotion.verify(settings, target.release, promotion_of(entries, target.release).evidence["golden"])
    except IntegrityError as error:
        wrong = [f.what for f in doctor.release_faults(settings, entries, target, doctor.Pieces(settings, entries))] or [
            str(error)
        ]
        head = f"release {target.number} is no place to go back to, what is live stays so"
        raise IntegrityError(f"{listing(head, wrong)}\n{instead(settings, target, entries)}") from error


def instead(settings: Settings, target: Found, entries: list[Entry]) -> str:
    """The nearest release before the live one that reads and answers, every byte of it."""
    proofs, gone, erased = housekeeping.Proofs(settings), retired(entries), erasures.standing(settings, entries)
    for found in reversed(succession(entries).line[:-1]):
        if found != target and found.release not in gone and not proofs.fault(found):
            with suppress(InputError):
                erasures.check_unlearnt(erased, found, housekeeping.pinned(settings, found))
                return f"Release {found.number} reads and answers: tandem rollback --to {found.number} --reason ..."
    return "No other release before the live one reads; to mend what can be: tandem doctor --mend"


@task(task_run_name="commit")
def record(opened: Session, target: Found, entries: list[Entry], reason: str) -> Entry:
    settings: Settings = opened.settings
    draft = Draft(
        action="rollback",
        release=target.release,
        number=target.number,
        version=registration.ensure(settings, entries, target.release, opened.run_id),
        candidate=None,
        who=settings.who,
        why=reason,
        at=promotion.now(),
        evidence={},
        runs={"mlflow": opened.run_id},
    )
    failpoint("rollback.before-entry")
    entry = ledger.append(settings.ledger, draft, len(entries))
    failpoint("rollback.after-entry")
    promotion.follow_ledger(settings)
    say(f"release {target.number} ({short(target.release)}) is live again")
    return entry
