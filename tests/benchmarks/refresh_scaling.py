"""`tandem refresh` after one fixed change against the size of the corpus: `python tests/benchmarks/refresh_scaling.py [ROUNDS]`.

Corpora, passages and vectors are those of index_scaling.py: 1,000 and 10,000 pages of ten passages, each in a project of its own
with 200 questions, a first release and the built-in model. One page is edited, then `tandem refresh` runs whole: index,
retrieval, the four arms on the test questions, verdict, promotion. The floors are 0 and the margin is 0.9, as the pages are made
of random words and nobody could answer: what is measured is the time. Prints each round, and the log-log slope of the medians.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from index_scaling import ROOT, Spent, change, invent_vectors, question, run, show_slopes, timed, write_pages

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
    write_pages(source, pages)
    write_jsonl(folder / "questions.jsonl", [question(number) for number in range(20, 220)])
    run(clone, "tandem", "ingest", "--documents", str(source), "--questions", str(folder / "questions.jsonl"))
    run(clone, "dvc", "repro", "models", "chunks")
    invent_vectors(clone)
    run(clone, "tandem", "release")
    return clone


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as folder:
        clones = {pages: make_project(Path(folder), pages) for pages in SIZES}
        spent: dict[int, list[dict[str, Spent]]] = {pages: [] for pages in SIZES}
        for edit in range(1, rounds + 1):
            for pages, clone in clones.items():
                change(clone, edit)
                clock, processor = timed(clone, "tandem", "refresh")
                spent[pages].append({"tandem refresh": (clock, processor)})
                print(f"{pages:6} pages: {clock:.1f} s ({processor:.1f} of the processor)", flush=True)
    show_slopes(spent)


if __name__ == "__main__":
    main()
