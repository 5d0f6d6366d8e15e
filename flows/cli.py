"""The command line. Exit 0 done, 2 bad input or usage, 3 refused by the gate or undecided, 1 anything else.

Heavy imports wait until they are needed.
"""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

from flows import commands, erasing, faults, showing
from flows.retention import DAYS, KEEP
from flows.settings import Settings, prepare, read_settings
from tasks.errors import TandemError

Command = Callable[[argparse.Namespace, Settings], Any]  # returns what --json prints


def main(argv: Sequence[str] | None = None) -> None:
    sys.exit(run(argv))


def run(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    warnings.filterwarnings("ignore")  # of libraries; a person at the terminal can do nothing about them
    try:
        with stdout_for_the_result():
            settings = read_settings()
            prepare(settings)
            result = options.command(options, settings)
    except TandemError as error:
        return report_error(str(error), error.exit_code, options.json)
    except KeyboardInterrupt:
        return report_error("stopped; run the same command again to go on from here", 1, options.json)
    except Exception as error:
        return report_error(faults.describe(error), 1, options.json)
    write(json.dumps(result, indent=2, ensure_ascii=False) if options.json else options.show(result))
    return exit_code(result)


@contextmanager
def stdout_for_the_result() -> Iterator[None]:
    """What a command, a library or a child process prints meanwhile goes to stderr: a program reads stdout."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def write(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `tandem history | head` has seen enough; Python would complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def report_error(message: str, code: int, as_json: bool) -> int:
    if as_json:
        write(json.dumps({"error": message, "exit_code": code}))
    print(f"tandem: {message}", file=sys.stderr)
    return code


def exit_code(result: Any) -> int:
    if isinstance(result, dict) and result.get("outcome") in ("refused", "undecided"):
        return 3
    return 1 if isinstance(result, dict) and (result.get("findings") or result.get("hits")) else 0


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="tandem", description="Keeps an assistant up to date by retrieval and by fine-tuning.")
    known = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str, command: Command, show: Callable[[Any], str]) -> argparse.ArgumentParser:
        made = known.add_parser(name, help=text, description=text)
        made.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
        made.set_defaults(command=command, show=show)
        return made

    added = add("ingest", "take in documents and questions, replacing those that were there", commands.ingest, showing.ingest)
    added.add_argument("--documents", nargs="+", required=True, metavar="PATH", help="folders, files or archives")
    added.add_argument("--questions", metavar="FILE", help="JSONL, JSON or CSV with question, answer, document")
    added.add_argument(
        "--column", action="append", default=[], metavar="OURS=THEIRS", help="answer=Answer: a column by another name"
    )
    added.add_argument("--take-back", nargs="+", default=[], metavar="PAGE", help="take in again although it was erased")
    added.add_argument("--reason", default="", help="why, for the ledger")
    added.add_argument("--allow-shrink", action="store_true", help="also with less than half the pages of the live release")
    added = add(
        "draft-questions",
        "propose question/answer pairs from pages, for a person to accept",
        commands.draft_questions,
        showing.says,
    )
    added.add_argument(
        "--out", required=True, metavar="FILE.jsonl", help="where the drafts go; a file that is there is not touched"
    )
    added.add_argument("--documents", nargs="+", metavar="PATH", help="folders, files or archives; without it, what was ingested")
    added.add_argument(
        "--per-page", type=int, default=2, metavar="N", help="pairs a page is to have, with those it has (%(default)s)"
    )
    added.add_argument("--answer", default="{value}", metavar="TEXT", help='the house\'s words: "At Larkfield it is {value}."')
    added = add("plan", "what would run, and why", commands.plan, showing.plan)
    added.add_argument(
        "--tune", action="store_true", help="measure for a minute how this machine embeds fastest; changes nothing"
    )
    added = add("release", "run the whole chain and promote the result where the gate lets it", commands.release, showing.outcome)
    added.add_argument("--adapter", metavar="FOLDER", help="judge this adapter, made elsewhere, in the place of the pipeline's")
    add("refresh", "the corpus changed: a new index with the live adapter, no training", commands.refresh, showing.outcome)
    add("retrain", "a new adapter on the corpus and questions as they are", commands.retrain, showing.outcome)
    added = add("ask", "ask the live release, or an older one", commands.ask, showing.answer)
    added.add_argument("question", help="in quotes")
    added.add_argument("--release", metavar="N", help="number or id of a release, with the documents that it had")
    added.add_argument("--arm", help="prompt, rag, lora or rag+lora instead of the arm that is served")
    added.add_argument("--explain", action="store_true", help="with the scores of both legs, the prompt and the decoding")
    added = add("why", "how an answer of `tandem ask` came about", commands.why, showing.why)
    added.add_argument("answer", metavar="ANSWER", help="the id that stands below the answer")
    added = add(
        "serve", "answer over HTTP from what is live, and from the next release once it is", commands.serve, showing.served
    )
    added.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="another than %(default)s needs TANDEM_TOKEN")
    added.add_argument("--port", type=int, default=8600, metavar="N", help="%(default)s; 0: any that is free")
    added.add_argument("--seconds", type=float, default=60, metavar="S", help="within which a question is answered (%(default)g)")
    added.add_argument(
        "--waiting", type=int, default=16, metavar="N", help="questions at a time, others are sent away (%(default)s)"
    )
    add("sweep", "try other params of the adapter on the validation questions; changes nothing", commands.sweep, showing.sweep)
    add(
        "study",
        "learning curve and other base models on the validation questions: what would help",
        commands.study,
        showing.study,
    )
    add("status", "what is live", commands.status, showing.status)
    add("history", "every ledger entry", commands.history, showing.history)
    added = add("diff", "what changed between two releases", commands.diff, showing.diff)
    added.add_argument("a", metavar="A", help="number or id of the one")
    added.add_argument("b", metavar="B", help="and of the other")
    added = add("report", "a judgement as one HTML page: verdict, arms, slices, every question", commands.report, showing.report)
    added.add_argument("name", nargs="?", metavar="N", help="number or id; without it the newest judgement, also a refusal")
    added.add_argument("--output", metavar="FILE", help="instead of a file below .tandem/reports")
    added = add("rollback", "make an earlier release live again", commands.rollback, showing.outcome)
    added.add_argument("--to", metavar="N", help="number or id; without it, the release before the live one")
    added.add_argument("--reason", required=True, help="for the ledger, and for who wonders next year")
    added = add("maintain", "drop old releases and what only they needed, and check what stays", commands.maintain, showing.says)
    added.add_argument("--keep", type=int, default=KEEP, metavar="N", help="the N newest releases stay (%(default)s)")
    added.add_argument("--days", type=int, default=DAYS, metavar="D", help="and those live in the last D days (%(default)s)")
    erasing.arguments(add)
    added = add("doctor", "check ledger, store, index and registry", commands.doctor, showing.doctor)
    added.add_argument(
        "--strict", action="store_true", help="fail for minor findings too, ask golden questions, and read DVC's cache"
    )
    added.add_argument("--mend", action="store_true", help="put right what can be put right without losing anything")
    return top


if __name__ == "__main__":
    main()
