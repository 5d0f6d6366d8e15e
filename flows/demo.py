"""`make demo`: the main job on the demo corpus, day one to rollback, each step the very flow that the command line runs.

What a step did is noted in .tandem/demo.json once it did what it should, so that a second run shows the results and does no
work; a step that was killed is done again, and what it had finished is found to be there already.
"""

import shutil
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import faults, ledger
from flows.commands import before_a_flow
from flows.opening import open_release
from flows.promotion import sealed_json
from flows.servers import where
from flows.settings import Settings, prepare, read_settings
from tasks.errors import InputError, TandemError
from tasks.params import ARMS
from tasks.records import Record, folder_digest, read_json, read_jsonl, write_json, write_jsonl

CORPUS = Path("data/demo")
QUESTION = "How large is the learning budget per person per calendar year?"
Notes = dict[str, Record]


@dataclass(frozen=True)
class Step:
    """`work` returns {"outcome", "lines": what a person should see, ...}; it is given what the steps before returned."""

    title: str
    work: Callable[[Settings, Notes], Record]
    expects: tuple[str, ...]


def main() -> None:
    warnings.filterwarnings("ignore")  # of libraries, as on the command line
    started = time.monotonic()
    try:
        settings = read_settings()
        prepare(settings)
        run(settings)
    except TandemError as error:
        stop(str(error), error.exit_code)
    except KeyboardInterrupt:
        stop("stopped; `make demo` goes on from here", 1)
    except Exception as error:
        stop(faults.describe(error), 1)
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes in all. `make clean` removes everything that the demo made.")


def stop(message: str, code: int) -> None:
    print(f"demo: {message}", file=sys.stderr)
    sys.exit(code)


def plot() -> dict[str, Step]:
    """Unchanged is what was done before, by a demo that was killed before it could note it, or by hand."""
    return {
        "1": Step("Day one: the handbook of a fictional company is ingested (tandem ingest)", ingest_day_one, ("ingested",)),
        "2": Step(
            "The whole chain: index, adapter, four arms, gate, release 1 (tandem release)", first_release,
            ("promoted", "unchanged"),
        ),
        "3": Step("Day two: facts changed, pages added, removed, renamed (tandem ingest)", ingest_day_two, ("ingested",)),
        "4": Step(
            "A new index with the live adapter, nothing trained: release 2 (tandem refresh)", second_release,
            ("promoted", "unchanged"),
        ),
        "5": Step(
            "A damaged adapter: sound by every digest, judged by its answers (tandem release --adapter)", damaged_candidate,
            ("refused",),
        ),
        "6": Step("Back to release 1, documents and weights together (tandem rollback)", go_back, ("rolled back", "unchanged")),
    }  # fmt: skip


def run(settings: Settings) -> None:
    refuse_another_corpus(settings)
    notes = settings.home / "demo.json"
    done: Notes = read_json(notes) if notes.exists() else {}
    for number, step in plot().items():
        print(f"\n=== {number}. {step.title}", flush=True)
        if done.get(number, {}).get("outcome") in step.expects:
            print("(done before; nothing to do)")
        else:
            done[number] = carry_out(settings, number, step, done)
            write_json(notes, done)
        show_step(done[number])
    finish(settings, done)


def carry_out(settings: Settings, number: str, step: Step, done: Notes) -> Record:
    before_a_flow(settings)  # here, not at the start: a demo that only shows its results needs no server
    result = step.work(settings, done)
    if result["outcome"] not in step.expects:
        raise TandemError(
            f"step {number} ended as {result['outcome']}, where {' or '.join(step.expects)} was expected: "
            f"{' '.join(result['lines'])} `make demo` tries it again; `make clean` starts from nothing"
        )
    return result


def refuse_another_corpus(settings: Settings) -> None:
    """What stands in data/raw is somebody's work, unless it is what the demo itself would put there."""
    present = settings.root / "data/raw/documents"
    if not present.exists():
        return
    found = folder_digest(present)
    if found == folder_digest(settings.root / CORPUS / "handbook"):
        return
    second = make_day_two(settings.root / CORPUS, clean(settings, "day-two"))
    if found != folder_digest(second / "handbook"):
        raise InputError(
            f"{present.parent} holds a corpus that is not the demo's, and the demo would replace it. Run it in another clone: "
            f"git clone {settings.root} ../tandem-demo && make -C ../tandem-demo demo"
        )


def clean(settings: Settings, name: str) -> Path:
    """An empty folder of the demo's own; a demo that was killed left the one before."""
    folder = settings.home / "demo" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def show_step(result: Record) -> None:
    for line in result["lines"]:
        print(f"  {line}")


# --- Steps


def ingest_day_one(settings: Settings, done: Notes) -> Record:
    return ingest(settings.root / CORPUS / "handbook", settings.root / CORPUS / "questions.jsonl")


def ingest(documents: Path, questions: Path) -> Record:
    from flows.ingest import ingest as flow

    counts = flow([str(documents)], str(questions))
    asked = counts["questions"]
    return {
        "outcome": "ingested",
        "lines": [
            f"{counts['ingested']} documents = {counts['accepted']} accepted + {counts['rejected']} rejected",
            f"questions: {asked['train']} train, {asked['validation']} validation, {asked['test']} test, by source page",
        ],
    }


def first_release(settings: Settings, done: Notes) -> Record:
    from flows.release import release

    return outcome_lines(release())


def ingest_day_two(settings: Settings, done: Notes) -> Record:
    folder = make_day_two(settings.root / CORPUS, clean(settings, "day-two"))
    return ingest(folder / "handbook", folder / "questions.jsonl")


def make_day_two(corpus: Path, folder: Path) -> Path:
    """The handbook with the overlay of data/demo/day-two: removed pages out, changed, added and renamed ones in."""
    shutil.copytree(corpus / "handbook", folder / "handbook")
    removed = (corpus / "day-two/removed.txt").read_text().split()
    for path in removed:
        (folder / "handbook" / path).unlink()
    shutil.copytree(corpus / "day-two/documents", folder / "handbook", dirs_exist_ok=True)
    changed = {record["id"]: record for record in read_jsonl(corpus / "day-two/questions.jsonl")}
    gone = {Path(path).with_suffix("").as_posix() for path in removed}
    merged = {record["id"]: record for record in read_jsonl(corpus / "questions.jsonl")} | changed
    write_jsonl(folder / "questions.jsonl", [record for record in merged.values() if record["document"] not in gone])
    return folder


def second_release(settings: Settings, done: Notes) -> Record:
    from flows.refresh import refresh

    result = outcome_lines(refresh())
    work = read_json(settings.root / "data/metrics/index.json")
    result["lines"].insert(
        0, f"embedded {work['embedded']} passages; {work['inserted']} rows inserted, {work['deleted']} deleted"
    )
    return result


def damaged_candidate(settings: Settings, done: Notes) -> Record:
    from flows.release import release

    folder = clean(settings, "damaged")
    damage(settings.root / "data/adapter", folder)
    return outcome_lines(release(str(folder)))


def damage(adapter: Path, folder: Path) -> None:
    """Every B matrix turned round: a well-formed adapter with digests of its own that pushes answers the wrong way."""
    from safetensors.torch import load_file, save_file

    weights = load_file(adapter / "adapter_model.safetensors")
    turned = {name: -2 * tensor if "lora_B" in name else tensor for name, tensor in weights.items()}
    save_file(turned, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    for name in ("adapter_config.json", "lineage.json"):
        shutil.copyfile(adapter / name, folder / name)


def go_back(settings: Settings, done: Notes) -> Record:
    from flows.rollback import rollback

    first = done["2"]["number"]
    live = ledger.live(ledger.read(settings.ledger))
    if live is not None and live.number == first:
        return {"outcome": "unchanged", "lines": [f"release {first} is live again, ledger entry {live.sequence}"]}
    result = rollback(str(first), "the demo goes back to show that it can")
    lines = [f"release {result['number']} is live again, ledger entry {result['sequence']}"]
    return {"outcome": result["outcome"], "lines": lines}


def outcome_lines(result: Record) -> Record:
    live = f"release {result['number']}" if result["number"] else "nothing"
    head = f"{result['outcome']}; live: {live} (ledger entry {result['sequence']})"
    return {"outcome": result["outcome"], "number": result["number"], "lines": [head, *result["reasons"]]}


# --- The end


def finish(settings: Settings, done: Notes) -> None:
    entries = ledger.read(settings.ledger)
    first, second = done["2"]["number"], done["4"]["number"]
    print(f'\n=== The same question, asked of both releases: "{QUESTION}"', flush=True)
    for number in (first, second):
        assistant, _ = open_release(settings, str(number))
        answer = assistant.ask(QUESTION)
        pages = [source["page"] for source in answer.sources if source["cited"]] or ["no page cited"]
        print(f"  release {number}: {answer.answer}   ({', '.join(pages)})")
    print(f"\n=== The arms of release {first} on the test questions")
    show_arms(settings, entries, first)
    live = ledger.live(entries)
    print(f"\nLive: release {live.number if live else '-'}. Ledger: {len(entries)} entries (tandem history).")
    print(f'Ask: .venv/bin/tandem ask "..."      Compare: .venv/bin/tandem diff {first} {second}')
    print(f"A judgement as a page, with every question: .venv/bin/tandem report {second}")
    print("Your own corpus: .venv/bin/tandem ingest --help")
    print(f"Both UIs: make up      then\n{where(settings)}")


def show_arms(settings: Settings, entries: list[ledger.Entry], number: int) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    promoted = next(entry for entry in entries if entry.action == "promote" and entry.number == number)
    report = sealed_json(settings, promoted.evidence["report"])
    verdict = sealed_json(settings, promoted.evidence["verdict"])
    table = Table(
        title=f"{report['questions']['count']} questions, means with 95 % intervals", title_justify="left", box=box.SIMPLE_HEAD
    )
    for column in ("arm", "primary", "fact", "citation", "style", "abstains", "tokens"):
        table.add_column(column, justify="left" if column == "arm" else "right", no_wrap=True)
    for arm in ARMS:
        values = report["arms"][arm]
        name = f"{arm} *" if arm == verdict["arm"] else arm
        shown = [values["metrics"].get(metric) for metric in ("primary", "fact_answerable", "citation", "style", "abstention")]
        table.add_row(name, *map(cell, shown), f"{values['cost']:.0f}")
    Console(width=110).print(table)
    print("fact: of the questions that the handbook answers; abstains: of those that it does not; tokens: cost of an answer.")
    print("* served. " + " ".join(verdict["reasons"]))


def cell(metric: dict[str, Any] | None) -> str:
    if metric is None:
        return "-"
    mean, low, high = (f"{metric[key]:.2f}".removeprefix("0") for key in ("mean", "low", "high"))
    return f"{mean} ({low}-{high})"


if __name__ == "__main__":
    main()
