"""`tandem erase` at the command line: what it takes, and what a person sees of it."""

import argparse
from collections.abc import Callable
from typing import Any

from flows.settings import Settings
from tasks.errors import InputError


def arguments(add: Callable[..., argparse.ArgumentParser]) -> None:
    added = add("erase", "take pages out of every answer at once, and then out of every store", erase, shown)
    added.add_argument("pages", nargs="*", metavar="PAGE", help="ids of pages, such as staff/leave")
    added.add_argument("--reason", default="", help="for the ledger; it stays there for ever and should name nobody")
    added.add_argument("--later", action="store_true", help="the tombstone now, the rest by the next `tandem maintain`")
    added.add_argument("--verify", action="store_true", help="search every store for what was erased; exit code 1 where it is")
    added.add_argument("--canary", action="append", default=[], metavar="TEXT", help="with --verify: a text that stood there")


def erase(options: argparse.Namespace, settings: Settings) -> Any:
    from flows import proof
    from flows.erase import erase as bury

    if options.verify and (options.pages or options.later):
        raise InputError("--verify looks for what is left of all erasures; name no page with it")
    if options.verify:
        return proof.verify(settings, options.canary)
    if not options.pages or options.canary:
        raise InputError('name the pages to erase: tandem erase staff/leave --reason "..."; --canary goes with --verify')
    return bury(options.pages, options.reason, options.later)


def shown(result: Any) -> str:
    if "documents" not in result:
        return str(result["says"])
    knew = [f"  {what} of release {', '.join(map(str, numbers))}" for what, numbers in result["knew"].items() if numbers]
    lines = [f"erased: {', '.join(result['documents'])} (ledger entry {result['sequence']}); no release answers from it any more"]
    lines += ["known to:", *knew] if knew else ["no release knew it"]
    if result["unsaid"]:
        lines.append(f"  releases {', '.join(map(str, result['unsaid']))}: the adapter does not say what it learnt, so it went")
    if result["fell_back"]:
        lines.append(
            f"release {result['number']} is served by the arm rag from now on: its adapter learnt from it (tandem retrain)"
        )
    if "pending" in result:
        return "\n".join([*lines, "the stores still hold it; to destroy it there: tandem maintain"])
    amended = [f"amended: release {', '.join(map(str, result['amended']))}"] if result["amended"] else []
    return "\n".join([*lines, *amended, result["says"]])
