"""The time of one fixed change against the size of the corpus: `python tests/benchmarks/index_scaling.py [PAGES ...]`.

One page of ten passages is edited, in corpora of 1,000 and 10,000 such pages, in turn, and `dvc repro index` is run: documents,
chunks, questions, retriever (off) and index, each in a process of its own, with the shipped params and the real embedder. (The
first build takes vectors that stand for a model's, around random centres.) Prints passages embedded, commits, bytes, seconds and,
in brackets, seconds of the processor, which other work on the machine disturbs less; then the log-log slope of both between the
smallest and the largest corpus: of the whole command, of what of it is DVC's own, and of each stage with the start of its
process.
"""

import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import peers
import yaml

from tasks.embedding import Embedder, VectorStore
from tasks.records import Record, read_json, read_jsonl, write_jsonl

ROOT = Path(__file__).parents[2]
Spent = tuple[float, float]  # seconds by the clock, and of the processor
STAGES = ("documents", "chunks", "questions", "retriever", "index")
REPEATS, PASSAGES_PER_CENTRE = 5, 100
WORDS = [
    f"{first}{second}"
    for first in ("bo", "ka", "ri", "su", "te", "lo")
    for second in ("ran", "mil", "dor", "fen", "gas", "pit", "nul")
]


def page(number: int, edit: int = 0) -> str:
    """Five sections of two paragraphs, a passage each."""
    chosen = random.Random(number * 1000 + edit)
    parts = [f"# Page {number}"]
    for section in range(5):
        parts.append(f"## Section {section}")
        parts += [" ".join(chosen.choices(WORDS, k=22)).capitalize() + "." for _ in range(2)]
    return "\n\n".join(parts) + "\n"


def question(number: int) -> Record:
    """As many in every corpus: the stage that deals them out is asked by `index`, for the retriever may learn from them."""
    start, *_, answer = page(number).split("\n\n")[2].rstrip(".").split()
    words = " ".join(random.Random(number).choices(WORDS, k=6))
    text = f"What follows {start} and {words}?"
    return {"question": text, "answer": answer, "document": f"folder-{number // 100}/page-{number}"}


def make_clone(folder: Path, pages: int) -> None:
    """What git holds of this clone, and a corpus, built once."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    for name in tracked:
        if (ROOT / name).is_file() and not name.startswith(("tests/", "docs/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    raw = folder / "data/raw/documents"
    write_pages(raw, pages)
    write_jsonl(raw.parent / "questions.jsonl", [question(number) for number in range(20, 60)])
    run(folder, "dvc", "repro", "models", "chunks")
    invent_vectors(folder)
    run(folder, "dvc", "repro", "index")


def write_pages(folder: Path, pages: int) -> None:
    for number in range(pages):
        (folder / f"folder-{number // 100}").mkdir(parents=True, exist_ok=True)
        (folder / f"folder-{number // 100}/page-{number}.md").write_text(page(number))


def run(folder: Path, *command: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(folder), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def invent_vectors(folder: Path) -> None:
    embedder = Embedder(folder / "data/models/embedder")
    store = VectorStore(folder / ".tandem/vectors.sqlite", embedder.digest)
    texts = [passage["embedded"] for passage in read_jsonl(folder / "data/chunks/passages.jsonl")]
    chosen = np.random.default_rng(1)
    centres = chosen.normal(size=(max(1, len(texts) // PASSAGES_PER_CENTRE), embedder.identity()["dimension"]))
    for start in range(0, len(texts), 10_000):
        part = texts[start : start + 10_000]
        vectors = centres[chosen.integers(len(centres), size=len(part))]
        vectors = vectors + 0.7 * chosen.normal(size=vectors.shape)
        store.put(part, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32))
    store.close()


def measure(folder: Path, pages: int, edit: int) -> dict[str, Spent]:
    """`dvc repro index` after one edit, and each stage's process after another one."""
    change(folder, 2 * edit)
    held = size(folder / ".tandem/index")
    seconds = {"dvc repro index": timed(folder, "dvc", "repro", "index")}
    work = read_json(folder / "data/metrics/index.json")
    written = (size(folder / ".tandem/index") - held) / 1000
    change(folder, 2 * edit + 1)
    stages = {stage: timed(folder, "bash", "-c", command(folder, stage)) for stage in STAGES}
    whole, parts = seconds["dvc repro index"], np.sum(list(stages.values()), axis=0)
    seconds |= {"DVC itself": (whole[0] - parts[0], whole[1] - parts[1])} | stages
    print(
        f"{pages:6} pages {10 * pages:7} passages: {work['embedded']:3} embedded, {work['commits']} commits, {written:6.0f} KB; "
        + ", ".join(f"{name} {clock:.2f} s ({processor:.2f})" for name, (clock, processor) in seconds.items()),
        flush=True,
    )
    return seconds


def change(folder: Path, edit: int) -> None:
    (folder / "data/raw/documents/folder-0/page-3.md").write_text(page(3, edit))


def timed(folder: Path, *words: str) -> Spent:
    started, before = time.monotonic(), peers.of_children()
    run(folder, *words)
    return time.monotonic() - started, peers.of_children() - before


def command(folder: Path, stage: str) -> str:
    """As it stands in dvc.yaml."""
    return str(yaml.safe_load((folder / "dvc.yaml").read_text())["stages"][stage]["cmd"]).replace("\\$", "$")


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    sizes = [int(word) for word in sys.argv[1:]] or [1_000, 10_000]
    with tempfile.TemporaryDirectory() as folder:
        clones = {pages: Path(folder) / str(pages) for pages in sizes}
        for pages, clone in clones.items():
            make_clone(clone, pages)
        spent = {pages: [] for pages in sizes}  # type: dict[int, list[dict[str, Spent]]]
        for edit in range(1, REPEATS + 1):
            for pages, clone in clones.items():
                spent[pages].append(measure(clone, pages, edit))
    show_slopes(spent)


def show_slopes(spent: dict[int, list[dict[str, Spent]]]) -> None:
    """Between the smallest and the largest corpus, by medians. spent: pages -> what each round took, by name."""
    sizes = list(spent)
    first, last = sizes[0], sizes[-1]
    for name in spent[first][0] if first != last else ():
        for place, kind in enumerate(("by the clock", "of the processor")):
            few, many = (statistics.median(each[name][place] for each in spent[pages]) for pages in (first, last))
            slope = math.log(many / few) / math.log(last / first)
            print(f"{name}, {kind}: {few:.2f} s -> {many:.2f} s, log-log slope {slope:.2f}")


if __name__ == "__main__":
    main()
