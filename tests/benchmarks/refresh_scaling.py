"""`tandem refresh` after one fixed change against the size of the corpus: `python tests/benchmarks/refresh_scaling.py [ROUNDS]`.

Corpora, passages and vectors are those of index_scaling.py: 1,000 and 10,000 pages of ten passages, each in a project of its own
with 200 questions, a first release and the built-in model. One page is edited, then `tandem refresh` runs whole: index,
retrieval, the four arms on the test questions, verdict, promotion. The floors are 0 and the margin is 0.9, as the pages are made
of random words and nobody could answer: what is measured is the time. Prints each round, and the log-log slope of the medians.
"""

import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peers
from index_scaling import ROOT, Spent, invent_vectors, page, question

from tasks.records import write_jsonl

SIZES = (1_000, 10_000)
LOOSENED = {
    "gate.yaml": {
        "min_questions: 30": "min_questions: 5",
        "primary: 0.5": "primary: 0.0",
        "fact: 0.5": "fact: 0.0",
        "abstention: 0.5": "abstention: 0.0",
        "margin: 0.10": "margin: 0.9",
    },
    "adapter.yaml": {"epochs: 2.0": "epochs: 0.5"},
}


def run(clone: Path, *command: str) -> Spent:
    environment = os.environ | {"PYTHONPATH": str(clone), "TANDEM_ROOT": str(clone)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    started, before = time.monotonic(), peers.of_children()
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}")
    return time.monotonic() - started, peers.of_children() - before


def make_project(folder: Path, pages: int) -> Path:
    clone, source = folder / f"clone-{pages}", folder / f"source-{pages}"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    for name, changes in LOOSENED.items():
        path = clone / "params" / name
        text = path.read_text()
        for before, after in changes.items():
            assert text.count(before) == 1, f"{name}: {before}"
            text = text.replace(before, after)
        path.write_text(text)
    for number in range(pages):
        path = source / f"folder-{number // 100}/page-{number}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(number))
    write_jsonl(folder / "questions.jsonl", [question(number) for number in range(20, 220)])
    run(clone, "tandem", "ingest", "--documents", str(source), "--questions", str(folder / "questions.jsonl"))
    run(clone, "dvc", "repro", "models", "chunks")
    invent_vectors(clone)
    run(clone, "tandem", "release")
    return clone


def refresh(clone: Path, edit: int) -> Spent:
    path = clone / "data/raw/documents/folder-0/page-3.md"
    path.unlink()  # it may be a link into DVC's cache
    path.write_text(page(3, edit))
    return run(clone, "tandem", "refresh")


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as folder:
        clones = {pages: make_project(Path(folder), pages) for pages in SIZES}
        spent: dict[int, list[Spent]] = {pages: [] for pages in SIZES}
        for _ in range(rounds):
            for pages, clone in clones.items():
                spent[pages].append(refresh(clone, random.randrange(10**6)))
                clock, processor = spent[pages][-1]
                print(f"{pages:6} pages: {clock:.1f} s ({processor:.1f} of the processor)", flush=True)
    for place, kind in enumerate(("by the clock", "of the processor")):
        few, many = (statistics.median(each[place] for each in spent[pages]) for pages in SIZES)
        slope = math.log(many / few) / math.log(SIZES[1] / SIZES[0])
        print(f"tandem refresh, {kind}: {few:.1f} s -> {many:.1f} s, log-log slope {slope:.2f}")


if __name__ == "__main__":
    main()
