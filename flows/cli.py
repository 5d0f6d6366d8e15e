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

from flows import asked, erasing, faults, ledger, showing
from flows.retention import DAYS, KEEP
from flows.settings import Settings, prepare, read_settings
from tasks.errors import InputError, TandemError

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
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, text: str, command: Command, show: Callable[[Any], str]) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
        made.set_defaults(command=command, show=show)
        return made

    added = add("ingest", "take in documents and questions, replacing those that were there", ingest, showing.ingest)
    added.add_argument("--documents", nargs="+", required=True, metavar="PATH", help="folders, files or archives")
    added.add_argument("--questions", metavar="FILE", help="JSONL, JSON or CSV with question, answer, document")
    added.add_argument(
        "--column", action="append", default=[], metavar="OURS=THEIRS", help="answer=Answer: a column by another name"
    )
    added.add_argument("--take-back", nargs="+", default=[], metavar="PAGE", help="take in again although it was erased")
    added.add_argument("--reason", default="", help="why, for the ledger")
    added = add(
        "draft-questions", "propose question/answer pairs from pages, for a person to accept", draft_questions, showing.says
    )
    added.add_argument(
        "--out", required=True, metavar="FILE.jsonl", help="where the drafts go; a file that is there is not touched"
    )
    added.add_argument("--documents", nargs="+", metavar="PATH", help="folders, files or archives; without it, what was ingested")
    added.add_argument(
        "--per-page", type=int, default=2, metavar="N", help="pairs a page is to have, with those it has (%(default)s)"
    )
    added.add_argument("--answer", default="{value}", metavar="TEXT", help='the house\'s words: "At Larkfield it is {value}."')
    added = add("plan", "what would run, and why", plan, showing.plan)
    added.add_argument(
        "--tune", action="store_true", help="measure for a minute how this machine embeds fastest; changes nothing"
    )
    added = add("release", "run the whole chain and promote the result where the gate lets it", release, showing.outcome)
    added.add_argument("--adapter", metavar="FOLDER", help="judge this adapter, made elsewhere, in the place of the pipeline's")
    add("refresh", "the corpus changed: a new index with the live adapter, no training", refresh, showing.outcome)
    add("retrain", "a new adapter on the corpus and questions as they are", retrain, showing.outcome)
    added = add("ask", "ask the live release, or an older one", ask, showing.answer)
    added.add_argument("question", help="in quotes")
    added.add_argument("--release", metavar="N", help="number or id of a release, with the documents that it had")
    added.add_argument("--arm", help="prompt, rag, lora or rag+lora instead of the arm that is served")
    added.add_argument("--explain", action="store_true", help="with the scores of both legs, the prompt and the decoding")
    added = add("why", "how an answer of `tandem ask` came about", why, showing.why)
    added.add_argument("answer", metavar="ANSWER", help="the id that stands below the answer")
    added = add("serve", "answer over HTTP from the live release, and from the next one once it is live", serve, showing.served)
    added.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="another than %(default)s needs TANDEM_TOKEN")
    added.add_argument("--port", type=int, default=8600, metavar="N", help="%(default)s; 0: any that is free")
    added.add_argument("--seconds", type=float, default=60, metavar="S", help="within which a question is answered (%(default)g)")
    added.add_argument(
        "--waiting", type=int, default=16, metavar="N", help="questions at a time, others are sent away (%(default)s)"
    )
    add("sweep", "try other params of the adapter on the validation questions; changes nothing", sweep, showing.sweep)
    add("study", "learning curve and other base models on the validation questions: what would help; changes nothing", study,
        showing.study)  # fmt: skip
    add("status", "what is live", status, showing.status)
    add("history", "every ledger entry", history, showing.history)
    added = add("diff", "what changed between two releases", diff, showing.diff)
    added.add_argument("a", metavar="A", help="number or id of the one")
    added.add_argument("b", metavar="B", help="and of the other")
    added = add("report", "a judgement as one HTML page: verdict, arms, slices, every question", report, showing.report)
    added.add_argument("name", nargs="?", metavar="N", help="number or id; without it the newest judgement, also a refusal")
    added.add_argument("--output", metavar="FILE", help="instead of a file below .tandem/reports")
    added = add("rollback", "make an earlier release live again", rollback, showing.outcome)
    added.add_argument("--to", metavar="N", help="number or id; without it, the release before the live one")
    added.add_argument("--reason", required=True, help="for the ledger, and for who wonders next year")
    added = add("maintain", "drop old releases and what only they needed, and check what stays", maintain, showing.says)
    added.add_argument("--keep", type=int, default=KEEP, metavar="N", help="the N newest releases stay (%(default)s)")
    added.add_argument("--days", type=int, default=DAYS, metavar="D", help="and those live in the last D days (%(default)s)")
    erasing.arguments(add)
    added = add("doctor", "check ledger, store, index and registry", doctor, showing.doctor)
    added.add_argument(
        "--strict", action="store_true", help="fail for minor findings too, ask golden questions, and read DVC's cache"
    )
    added.add_argument("--mend", action="store_true", help="put right what can be put right without losing anything")
    return top


# --- Commands: each returns plain values


def ingest(options: argparse.Namespace, settings: Settings) -> Any:
    before_a_flow(settings)
    from flows.ingest import ingest as flow

    return flow(options.documents, options.questions, parse_columns(options.column), options.take_back, options.reason)


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
    before_a_flow(settings)
    from flows.release import release as flow

    return flow(options.adapter)


def refresh(options: argparse.Namespace, settings: Settings) -> Any:
    before_a_flow(settings)
    from flows.refresh import refresh as flow

    return flow()


def retrain(options: argparse.Namespace, settings: Settings) -> Any:
    before_a_flow(settings)
    from flows.retrain import retrain as flow

    return flow()


def sweep(options: argparse.Namespace, settings: Settings) -> Any:
    before_a_flow(settings)
    from flows.sweep import sweep as flow

    return flow()


def study(options: argparse.Namespace, settings: Settings) -> Any:
    before_a_flow(settings)
    from flows.study import study as flow

    return flow()


def rollback(options: argparse.Namespace, settings: Settings) -> Any:
    before_a_flow(settings)
    from flows.rollback import rollback as flow

    return flow(options.to, options.reason)


def maintain(options: argparse.Namespace, settings: Settings) -> Any:
    before_a_flow(settings)
    from flows.maintain import maintain as flow

    return flow(options.keep, options.days)


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


if __name__ == "__main__":
    main()
