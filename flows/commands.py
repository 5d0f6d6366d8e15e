"""What each command of `tandem` does: from its options to plain values, which `--json` prints. Heavy imports wait until they are
needed."""

import argparse
import os
from importlib import import_module
from typing import Any

from flows import asked, ledger
from flows.settings import Settings
from tasks.errors import InputError


def ingest(options: argparse.Namespace, settings: Settings) -> Any:
    return flow("ingest", settings)(
        options.documents,
        options.questions,
        parse_columns(options.column),
        options.take_back,
        options.reason,
        options.allow_shrink,
    )


def draft_questions(options: argparse.Namespace, settings: Settings) -> Any:
    from flows.drafting import draft

    return draft(settings, options.documents, options.out, options.per_page, options.answer)


def parse_columns(pairs: list[str]) -> dict[str, str]:
    broken = [pair for pair in pairs if "=" not in pair]
    if broken:
        raise InputError(f"--column {broken[0]}: write OURS=THEIRS, such as --column answer=Answer")
    return dict(pair.split("=", 1) for pair in pairs)


def plan(options: argparse.Namespace, settings: Settings) -> Any:
    from flows.checks import check_params
    from flows.planning import plan as make

    check_params(settings.root / "params")
    if options.tune:
        from flows import tuning

        return tuning.tune(settings, tuning.SECONDS)
    return make(settings)


def release(options: argparse.Namespace, settings: Settings) -> Any:
    return flow("release", settings)(options.adapter)


def refresh(options: argparse.Namespace, settings: Settings) -> Any:
    return flow("refresh", settings)()


def retrain(options: argparse.Namespace, settings: Settings) -> Any:
    return flow("retrain", settings)()


def sweep(options: argparse.Namespace, settings: Settings) -> Any:
    return flow("sweep", settings)()


def study(options: argparse.Namespace, settings: Settings) -> Any:
    return flow("study", settings)()


def rollback(options: argparse.Namespace, settings: Settings) -> Any:
    return flow("rollback", settings)(options.to, options.reason)


def maintain(options: argparse.Namespace, settings: Settings) -> Any:
    return flow("maintain", settings)(options.keep, options.days)


def flow(name: str, settings: Settings) -> Any:
    """The flow of that name, from the module of that name, when everything is ready for it to run."""
    before_a_flow(settings)
    return getattr(import_module(f"flows.{name}"), name)


def before_a_flow(settings: Settings) -> None:
    """Prefect prints a traceback for every error that a flow raises; a person gets one sentence instead. The UI keeps all."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    from flows.apart import start_server
    from flows.checks import check_space

    check_space(settings.home)
    start_server()


def ask(options: argparse.Namespace, settings: Settings) -> Any:
    from flows.opening import open_release
    from flows.promotion import now
    from tasks.explaining import explanation

    assistant, number = open_release(settings, options.release)
    answer = assistant.ask(options.question, options.arm)
    told = explanation(assistant, options.question, answer) | {"number": number, "at": now()}
    identity = asked.keep(settings, told)
    return answer.to_json() | {"number": number, "id": identity} | ({"why": told | {"id": identity}} if options.explain else {})


def why(options: argparse.Namespace, settings: Settings) -> Any:
    from flows import erasures

    told = asked.recall(asked.place(settings), options.answer)
    if not erasures.told_without(erasures.standing(settings, ledger.read(settings.ledger)), told):
        raise InputError(f"answer {options.answer} showed a page that was erased since; it is not told any more")
    return told


def serve(options: argparse.Namespace, settings: Settings) -> Any:
    from flows.serve import serve as answer_over_http
    from flows.web import Limits

    return answer_over_http(settings, options.host, options.port, Limits(options.seconds, options.waiting))


def status(options: argparse.Namespace, settings: Settings) -> Any:
    from flows.status import status as live

    return live(settings)


def history(options: argparse.Namespace, settings: Settings) -> Any:
    return [entry.model_dump() for entry in ledger.read(settings.ledger)]


def diff(options: argparse.Namespace, settings: Settings) -> Any:
    from flows.comparing import diff as compare

    return compare(settings, options.a, options.b)


def report(options: argparse.Namespace, settings: Settings) -> Any:
    from pathlib import Path

    from flows.reporting import report as make

    return make(settings, options.name, Path(options.output) if options.output else None)


def doctor(options: argparse.Namespace, settings: Settings) -> Any:
    from flows import doctor as examination

    done = examination.mend(settings) if options.mend else []
    found = examination.examine(settings, options.strict)
    notes = [] if options.strict else [finding for finding in found if finding.minor]
    return {
        "mended": done,
        "findings": examination.as_json([finding for finding in found if finding not in notes]),
        "notes": examination.as_json(notes),
    }
