"""The whole chain on a real corpus, in a clone of its own.

`python tests/benchmarks/real_data.py aws-docs DATA CLONE [--legs-only]`: DATA is the folder that holds aws-docs/ and pubmedqa/
(neither is part of this repository); CLONE an empty folder, or one from an interrupted run, which goes on where it was.
Prints one JSON object: pages, passages, minutes by stage, recall of each leg, the arms.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMON = {
    # longer passages than the demo's: pages are long
    "chunks.yaml:max_words": "150", "chunks.yaml:join_below_words": "80", "chunks.yaml:table_cell": '""',
    # nobody's voice: these answers have none
    "prompt.yaml:system": '""', "prompt.yaml:abstention": "The pages do not say.", "evaluate.yaml:voice": '"."',
    "gate.yaml:abstention": "0",  # no question that the corpus does not answer
}  # fmt: skip
SETTINGS: dict[str, dict[str, str]] = {
    # most of the few questions go into the test
    "aws-docs": {"questions.yaml:train": "0.2", "questions.yaml:validation": "0.2", "questions.yaml:test": "0.6",
                 "questions.yaml:max_rejected": "0.2", **COMMON},
    "pubmedqa": COMMON,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", choices=SETTINGS)
    parser.add_argument("data", type=Path)
    parser.add_argument("clone", type=Path)
    parser.add_argument("--legs-only", action="store_true", help="index and retrieval figures, no training")
    options = parser.parse_args()
    clone = make_clone(options.clone.absolute(), SETTINGS[options.corpus])
    documents, questions = prepare(options.corpus, options.data.absolute(), clone)
    started = time.monotonic()
    tandem(clone, "ingest", "--documents", str(documents), "--questions", str(questions))
    outcome: Any = None
    if options.legs_only:
        run(clone, "dvc", "repro", "index")
    else:
        outcome = tandem(clone, "release")
    minutes = round((time.monotonic() - started) / 60, 1)
    print(json.dumps(figures(clone) | {"outcome": outcome, "minutes": minutes}, indent=2))


def make_clone(clone: Path, settings: dict[str, str]) -> Path:
    """A git clone, with the environment of this one and a few params set."""
    if not (clone / "dvc.yaml").exists():
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        for place, value in settings.items():
            file, key = place.split(":")
            set_param(clone / "params" / file, key, value)
    return clone


def set_param(path: Path, key: str, value: str) -> None:
    lines = path.read_text().splitlines()
    found = [number for number, line in enumerate(lines) if line.strip().startswith(f"{key}:")]
    indent = lines[found[0]][: len(lines[found[0]]) - len(lines[found[0]].lstrip())]
    lines[found[0]] = f"{indent}{key}: {value}  # set by tests/benchmarks/real_data.py"
    path.write_text("\n".join(lines) + "\n")


def prepare(corpus: str, data: Path, clone: Path) -> tuple[Path, Path]:
    if corpus == "aws-docs":
        return data / "aws-docs/corpus.tar.gz", data / "aws-docs/questions.csv"
    return pubmedqa_pages(data / "pubmedqa/documents.jsonl", clone / "pubmedqa"), data / "pubmedqa/questions.jsonl"


def pubmedqa_pages(source: Path, folder: Path) -> Path:
    """One Markdown page per abstract, a section per label."""
    folder.mkdir(exist_ok=True)
    for line in source.read_text().splitlines():
        record = json.loads(line)
        sections = "\n\n".join(f"## {section['label'].title()}\n\n{section['text']}" for section in record["sections"])
        (folder / f"{record['id']}.md").write_text(f"# Abstract {record['id']}\n\n{sections}\n")
    return folder


def tandem(clone: Path, *words: str) -> Any:
    done = run(clone, "tandem", *words, "--json", allowed=(0, 3))
    return json.loads(done) if done.strip() else None


def run(clone: Path, program: str, *words: str, allowed: tuple[int, ...] = (0,)) -> str:
    binary = Path(sys.executable).with_name(program)
    # PYTHONPATH: the code of the clone, not that of the checkout from which the environment was installed
    environment = {
        "TANDEM_ROOT": str(clone),
        "PYTHONPATH": str(clone),
        "PATH": f"{binary.parent}:/usr/bin:/bin",
        "HOME": str(Path.home()),
    }
    done = subprocess.run([binary, *words], cwd=clone, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in allowed:
        sys.exit(f"{program} {' '.join(words)} ended with {done.returncode}")
    return done.stdout


def figures(clone: Path) -> dict[str, Any]:
    found: dict[str, Any] = {
        "documents": read(clone / "data/documents/counts.json"),
        "passages": read(clone / "data/chunks/counts.json"),
    }
    found["legs"] = legs(clone)
    for name in ("index", "retrieval", "adapter", "evaluate"):
        path = clone / f"data/metrics/{name}.json"
        if path.exists():
            found[name] = {key: value for key, value in read(path).items() if key != "curve"}
    return found


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def legs(clone: Path) -> dict[str, Any]:
    """Share of ALL questions with the right page among the first 1, 5, 10, 20, for fixed settings (none is chosen)."""
    from tasks.embedding import Embedder
    from tasks.records import read_jsonl
    from tasks.search import Index, fuse

    index = Index(
        str(clone / ".tandem/index"), read(clone / "data/index/manifest.json"), Embedder(clone / "data/models/embedder")
    )
    splits = [
        record for split in ("train", "validation", "test") for record in read_jsonl(clone / f"data/questions/{split}.jsonl")
    ]
    asked = [record for record in splits if record["document"]]
    index.expect([record["question"] for record in asked])
    table: dict[str, Any] = {"questions": len(asked)}
    ranked = {record["id"]: index.legs(record["question"], 100) for record in asked}
    for name, weight in (("full text", 1.0), ("vector", 0.0), ("hybrid, equal weights", 0.5)):
        passages = {
            key: [found[passage]["document"] for passage, _ in fuse(text, near, weight, "ratio")]
            for key, (text, near, found) in ranked.items()
        }
        pages = {key: list(dict.fromkeys(documents)) for key, documents in passages.items()}
        table[name] = {"among passages": shares(asked, passages), "among pages": shares(asked, pages)}
    return table


def shares(asked: list[dict[str, Any]], documents: dict[str, list[str]]) -> dict[str, float]:
    found = {record["id"]: documents[record["id"]].index(record["document"]) for record in asked
             if record["document"] in documents[record["id"]]}  # fmt: skip
    return {f"@{k}": round(sum(place < k for place in found.values()) / len(asked), 3) for k in (1, 5, 10, 20)}


if __name__ == "__main__":
    main()
