"""`make demo`: the main job on the demo corpus, day one to rollback, each step the very flow that the command line runs.

What a step did is noted in .tandem/demo.json, so that a second run shows the results and does no work; a step that was killed
is done again.
"""

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows import ledger
from flows.cli import quiet
from flows.opening import open_release
from flows.promotion import scratch, sealed_json
from flows.settings import Settings, prepare, read_settings
from tasks.errors import TandemError
from tasks.records import Record, read_json, read_jsonl, write_json, write_jsonl

CORPUS = Path("data/demo")
QUESTION = "How many days of paid annual leave do full-time staff receive each year?"
Step = Callable[[Settings], Record]


def main() -> None:
    settings = read_settings()
    prepare(settings)
    quiet()
    started = time.monotonic()
    try:
        run(settings)
    except TandemError as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes in all. `make clean` removes everything that the demo made.")


def run(settings: Settings) -> None:
    steps: list[tuple[str, str, Step]] = [
        ("1", "Day one: the handbook of a fictional company is ingested (tandem ingest)", ingest_day_one),
        ("2", "The whole chain: index, adapter, four arms, gate, release 1 (tandem release)", first_release),
        ("3", "Day two: facts changed, pages added, removed, renamed (tandem ingest)", ingest_day_two),
        ("4", "A new index with the live adapter, nothing trained: release 2 (tandem refresh)", second_release),
        ("5", "A damaged adapter: sound by every digest, judged by its answers (tandem release --adapter)", damaged_candidate),
        ("6", "Back to release 1, documents and weights together (tandem rollback)", go_back),
    ]
    notes = settings.home / "demo.json"
    done: dict[str, Record] = read_json(notes) if notes.exists() else {}
    for number, title, step in steps:
        print(f"\n=== {number}. {title}", flush=True)
        if number in done:
            print("(done before; nothing to do)")
        else:
            done[number] = step(settings)
            write_json(notes, done)
        show_step(done[number])
    finish(settings)


def show_step(result: Record) -> None:
    for line in result["lines"]:
        print(f"  {line}")


# --- Steps: each returns {"lines": what a person should see}


def ingest_day_one(settings: Settings) -> Record:
    return ingest(settings.root / CORPUS / "handbook", settings.root / CORPUS / "questions.jsonl")


def ingest(documents: Path, questions: Path) -> Record:
    from flows.ingest import ingest as flow

    counts = flow([str(documents)], str(questions))
    asked = counts["questions"]
    return {
        "lines": [
            f"{counts['ingested']} documents = {counts['accepted']} accepted + {counts['rejected']} rejected",
            f"questions: {asked['train']} train, {asked['validation']} validation, {asked['test']} test, by source page",
        ]
    }


def first_release(settings: Settings) -> Record:
    from flows.release import release

    return outcome_lines(release())


def ingest_day_two(settings: Settings) -> Record:
    folder = scratch(settings, "day-two")
    try:
        make_day_two(settings.root / CORPUS, folder)
        return ingest(folder / "handbook", folder / "questions.jsonl")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_day_two(corpus: Path, folder: Path) -> None:
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


def second_release(settings: Settings) -> Record:
    from flows.refresh import refresh

    result = outcome_lines(refresh())
    work = read_json(settings.root / "data/metrics/index.json")
    result["lines"].insert(
        0, f"embedded {work['embedded']} passages; {work['inserted']} rows inserted, {work['deleted']} deleted"
    )
    return result


def damaged_candidate(settings: Settings) -> Record:
    from flows.release import release

    folder = scratch(settings, "damaged")
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


def go_back(settings: Settings) -> Record:
    from flows.rollback import rollback

    result = rollback("1", "the demo goes back to show that it can")
    return {"lines": [f"release {result['number']} is live again, ledger entry {result['sequence']}"]}


def outcome_lines(result: Record) -> Record:
    live = f"release {result['number']}" if result["number"] else "nothing"
    head = f"{result['outcome']}; live: {live} (ledger entry {result['sequence']})"
    return {"lines": [head, *result["reasons"]], "sequence": result["sequence"]}


# --- The end


def finish(settings: Settings) -> None:
    entries = ledger.read(settings.ledger)
    print(f'\n=== The same question, asked of both releases: "{QUESTION}"', flush=True)
    for number in ("1", "2"):
        assistant, _ = open_release(settings, number)
        answer = assistant.ask(QUESTION)
        pages = [source["page"] for source in answer.sources if source["cited"]] or ["no page cited"]
        print(f"  release {number}: {answer.answer}   ({', '.join(pages)})")
    print("\n=== The arms of release 1 on the test questions")
    show_arms(settings, entries)
    live = ledger.live(entries)
    print(f"\nLive: release {live.number if live else '-'}. Ledger: {len(entries)} entries (tandem history).")
    print("Both UIs: make up      then http://127.0.0.1:4200 (Prefect) and http://127.0.0.1:5000 (MLflow)")
    print('Ask: .venv/bin/tandem ask "..."      Compare: .venv/bin/tandem diff 1 2')
    print("Your own corpus: .venv/bin/tandem ingest --help")


def show_arms(settings: Settings, entries: list[ledger.Entry]) -> None:
    from rich.console import Console
    from rich.table import Table

    promoted = next(entry for entry in entries if entry.action == "promote")
    report = sealed_json(settings, promoted.evidence["report"])
    verdict = sealed_json(settings, promoted.evidence["verdict"])
    table = Table(title=f"{report['questions']['count']} questions, means with 95 % intervals", title_justify="left")
    for column in ("arm", "primary", "fact", "citation", "style", "abstains", "tokens", "p50 s"):
        table.add_column(column, justify="left" if column == "arm" else "right", no_wrap=True)
    for arm, values in report["arms"].items():
        name = f"{arm} *" if arm == verdict["arm"] else arm
        shown = [values["metrics"].get(metric) for metric in ("primary", "fact", "citation", "style", "abstention")]
        table.add_row(name, *map(cell, shown), f"{values['cost']:.0f}", f"{values['latency_p50']:.2f}")
    Console(width=120).print(table)
    print("* served. " + " ".join(verdict["reasons"]))


def cell(metric: dict[str, Any] | None) -> str:
    return "-" if metric is None else f"{metric['mean']:.2f} ({metric['low']:.2f}-{metric['high']:.2f})"


if __name__ == "__main__":
    main()
