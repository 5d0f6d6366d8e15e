"""A small change among 10,000 passages: `python tests/benchmarks/one_edit.py [--rounds N] [--peers tandem,cocoindex]`.

1,000 pages of ten sections; one paragraph is edited (timed: seven rounds, in turns, in fresh processes), then once each: the edit
is taken back, a folder of 100 pages is renamed, a page is copied, all files are touched. For Tandem,
CocoIndex, LangChain's `index()` and LlamaIndex's `IngestionPipeline`, all on the same files with the same MiniLM into LanceDB:
texts that were embedded (counted at the model), rows, seconds from the start of the process until the table is up to date,
seconds of the processor, and of the update alone (without imports and, where it is loaded ahead, the model). At the end each
table is compared with one built from scratch.

Tandem is the stages documents, chunks and index in one process (it looks at all files, reads, cuts and embeds what is new, writes
rows and full text, measures recall against the exact scan, tags); with --chain also `dvc repro index`, what a person types: the
same in a process each, with DVC's hashing of inputs and outputs. The first builds take random vectors. Needs the environments of
`python tests/benchmarks/peers.py --setup`, those of --peers at least; 10 to 40 minutes. Every run is a line as it ends, and is in
--results (JSON) at once; a peer that fails, or takes more than 20 minutes, is left out from then on.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import peers
from no_change import write_model
from peers import Peer
from peers_corpus import edit_page, files, write_pages
from prefect_runs import environment

sys.path.insert(0, str(peers.ROOT / "tests"))

import tiny

SECTIONS = 10  # of a page, a passage each where that can be set
CUT = {"max_words": 80, "join_below_words": 20}  # of ours: a passage a section
ONE_PROCESS, CHAIN = "tandem, stages in one process", "tandem, dvc repro index"
TIMED = "one passage edited"
Way = Callable[[bool], dict[str, Any]]  # takes whether vectors may be random; returns "embedded", "rows", "whole", "update"
Ways = dict[str, Way]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peers", default=",".join(["tandem", *peers.names()]), help="as many of these as there are to be")
    parser.add_argument("--chain", action="store_true", help="`dvc repro index` as well")
    parser.add_argument("--results", type=Path, default=Path("one_edit.json"), help="all that was measured")
    options = parser.parse_args()
    wanted = [name for name in options.peers.split(",") if name != "tandem"]
    peers.check_there(wanted)
    log = peers.Log(options.results, {"machine": peers.machine(), "pages": options.pages, "command": sys.argv[1:]})
    for name in wanted:
        log.note(name, peers.versions(name, *peers.PACKAGES[name]))
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), wanted, options.pages, options.rounds, options.chain, log)


def compare(folder: Path, wanted: list[str], pages: int, rounds: int, with_chain: bool, log: peers.Log) -> None:
    write_pages(folder / "pages", pages, SECTIONS)
    write_model(folder / "model")
    ways = {ONE_PROCESS: ours(folder)} | theirs(folder, "state", wanted) | ({CHAIN: chain(folder)} if with_chain else {})
    record("first build, random vectors", ways, log, stand_in=True)
    edits = []
    for edit in range(1, rounds + 1):
        edit_page(folder / "pages", edit * 7 % pages, SECTIONS, {edit % SECTIONS: edit})
        edits.append(record(TIMED, ways, log))
    show({TIMED: edits})
    ways.pop(CHAIN, None)  # its counts are those of the stages
    others = {}
    for name, change in CHANGES.items():
        change(folder / "pages", pages, rounds)
        others[name] = [record(name, ways, log)]
    show(others)
    check_from_scratch(folder, wanted, ways, others[name][0], log)


def record(name: str, ways: Ways, log: peers.Log, stand_in: bool = False) -> dict[str, dict[str, Any]]:
    """Every way brings its table up to date, in turn; one that cannot is out of `ways`."""
    found = {}
    for way, run in list(ways.items()):
        try:
            found[way] = run(stand_in)
        except (SystemExit, subprocess.TimeoutExpired) as error:
            if way == ONE_PROCESS:
                raise
            ways.pop(way)
            log.note(way, f"left out since {name}: {error}")
        else:
            log.add(name, way, found[way])
            print(f"{name}, load {os.getloadavg()[0]:.1f}: {way}: {told(found[way])}", flush=True)
    return found


def told(found: dict[str, Any]) -> str:
    parts = "".join(f", {name} {seconds:.2f}" for name, seconds in found.get("parts", {}).items())
    seconds = f"{found['whole']:.2f} s, of it the update {found['update']:.2f}{parts}"
    return f"{found['embedded']} embedded, {found['rows']} rows, {seconds}; {found['cpu']:.2f} s of the processor"


# --- The changes


def revert(folder: Path, pages: int, rounds: int) -> None:
    edit_page(folder, rounds * 7 % pages, SECTIONS, {})


def rename(folder: Path, pages: int, rounds: int) -> None:
    (folder / "part-000").rename(folder / "renamed")


def copy(folder: Path, pages: int, rounds: int) -> None:
    shutil.copyfile(files(folder)[0], folder / "copied.md")


def touch(folder: Path, pages: int, rounds: int) -> None:
    for path in folder.rglob("*.md"):
        path.touch()


CHANGES = {
    "the last edit taken back": revert,
    "a folder of 100 pages renamed": rename,
    "a page copied": copy,
    "all files touched": touch,
}


# --- The ways


def ours(folder: Path, state: str = "tandem") -> Way:
    places = {"pages": folder / "pages", "state": folder / state, "int8": folder / "int8"}
    return lambda stand_in: peers.reported(
        [sys.executable, __file__, "--stages", *map(str, places.values()), "1" if stand_in else "0"],
        peers.outside() | {"PYTHONPATH": str(peers.ROOT)},
        folder,
    )


def stages(pages: Path, state: Path, embedder: Path, stand_in: bool) -> None:
    """In a process of its own: what `dvc repro index` runs in three. Libraries are imported and the model is opened ahead, as the
    peers' are."""
    import tasks.index
    from tasks.chunks import chunks
    from tasks.documents import documents
    from tasks.embedding import Embedder, open_aside
    from tasks.encoders import PINNED
    from tasks.lean_imports import import_arrow_without_pandas, import_lancedb
    from tasks.params import ChunksParams, DocumentsParams, IndexParams, ModelsParams
    from tasks.params_files import load
    from tasks.records import write_json

    params = peers.ROOT / "params"
    if not embedder.exists():
        from tasks.models import write_embedder

        write_embedder(load(ModelsParams, params).embedder, embedder)
    with ThreadPoolExecutor(1) as aside:
        opened = open_aside(aside, embedder)
        import_arrow_without_pandas()
        import_lancedb()
    tasks.index.open_aside = lambda *_: opened
    counted = count(Embedder, stand_in)
    began = time.time()
    documents(pages, state / "documents", state / "files.jsonl", load(DocumentsParams, params))
    parsed = time.time()
    chunks(state / "documents", state / "chunks", state / "pages.jsonl", load(ChunksParams, params).model_copy(update=CUT))
    cut = time.time()
    write_json(state / "retriever" / PINNED, {"sides": "none"})
    tasks.index.index(
        state / "chunks", embedder, state / "retriever", state / "index", state / "metrics.json", str(state / "table"),
        state / "vectors.sqlite", load(IndexParams, params),
    )  # fmt: skip
    ended = time.time()
    parts = {"documents": parsed - began, "chunks": cut - parsed, "index": ended - cut}
    found = {"embedded": counted[0], "parts": parts, "update": ended - began, "ended": ended}
    print(json.dumps(found | texts_of(state / "table", state / "index/manifest.json")))


def count(embedder: Any, stand_in: bool) -> list[int]:
    """[texts embedded as passages], kept up to date. The probes of an embedder's identity are not among them."""
    import numpy as np

    encode, counted = embedder.passages, [0]

    def counting(self: Any, texts: Any, batch_tokens: int) -> Any:
        counted[0] += len(texts)
        if not stand_in:
            return encode(self, texts, batch_tokens)
        vectors = np.random.default_rng(counted[0]).normal(size=(len(texts), 384))
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    embedder.passages = counting
    return counted


def texts_of(store: Path, manifest: Path) -> dict[str, Any]:
    """{"rows", "texts": digest} of the table, at the version that the manifest names."""
    from tasks.records import read_json, value_digest
    from tasks.search import open_version

    table = open_version(str(store), read_json(manifest))
    texts = table.search().select(["text"]).limit(table.count_rows()).to_arrow()["text"].to_pylist()
    return {"rows": len(texts), "texts": value_digest(sorted(texts))}


def chain(folder: Path) -> Way:
    """A clone as a person has it, with the built-in embedder; its documents follow the pages, file by file."""
    clone = tiny.make_clone(folder / "clone", tiny.write_base(folder / "base"), tiny.write_embedder(folder / "embedder"))
    tiny.change_params(clone, "models.yaml", {"embedder": {"source": "builtin", "id": "", "backend": "onnx-int8"}})
    tiny.change_params(clone, "chunks.yaml", CUT)

    def run(stand_in: bool) -> dict[str, Any]:
        follow(folder / "pages", clone / "data/raw/documents")
        if not (clone / "data/raw.dvc").exists():
            peers.finished([sys.executable, "-m", "dvc", "add", "data/raw"], environment(clone), clone)
        before = peers.of_children()
        seconds = peers.timed([sys.executable, "-m", "dvc", "repro", "index"], environment(clone), clone)
        used = peers.of_children() - before
        work = json.loads((clone / "data/metrics/index.json").read_text())
        held = texts_of(clone / ".tandem/index", clone / "data/index/manifest.json")
        return held | {"embedded": work["embedded"], "whole": seconds, "cpu": used, "update": seconds}

    return run


def follow(source: Path, target: Path) -> None:
    """Copy what is new or has another time, with its time; delete what is gone."""
    found = {path.relative_to(source): path for path in source.rglob("*.md")}
    for name in [path.relative_to(target) for path in target.rglob("*.md")]:
        if name not in found:
            (target / name).unlink()
    for name, path in found.items():
        copied = target / name
        if not copied.exists() or copied.stat().st_mtime_ns != path.stat().st_mtime_ns:
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copied)


def theirs(folder: Path, state: str, wanted: list[str]) -> Ways:
    (folder / state).mkdir()
    named = [(name, way) for name in wanted for way in ("default", "tuned")]
    return {f"{name}, {way}": Peer(name, way, folder / "pages", folder / state, folder / "model").run for name, way in named}


# --- The end


def check_from_scratch(folder: Path, wanted: list[str], ways: Ways, found: dict[str, dict[str, Any]], log: peers.Log) -> None:
    """The texts that each table holds in the end, against those of one built anew from the same pages."""
    scratch = {ONE_PROCESS: ours(folder, "scratch")} | theirs(folder, "scratch-peers", wanted)
    fresh = record("from scratch, random vectors", {way: scratch[way] for way in ways}, log, True)
    for way, anew in fresh.items():
        same = "those" if found[way]["texts"] == anew["texts"] else "NOT those"
        log.note(way, f"{found[way]['rows']} rows, {same} of a build from scratch ({anew['rows']})")


def show(measured: dict[str, list[dict[str, dict[str, Any]]]]) -> None:
    for name, rounds in measured.items():
        print(f"\n{name}{f', medians of {len(rounds)}' if len(rounds) > 1 else ', once'}\n")
        print("| | texts embedded | rows | seconds | times ours | of the processor | times ours | update alone | times ours |")
        print("|---|---|---|---|---|---|---|---|---|")
        for way in [each for each in rounds[0] if each in rounds[-1]]:
            print(f"| {way} | {told_once(rounds, way, 'embedded')} | {told_once(rounds, way, 'rows')} | {row(rounds, way)} |")


def told_once(rounds: list[dict[str, dict[str, Any]]], way: str, what: str) -> str:
    return " or ".join(map(str, sorted({found[way][what] for found in rounds})))


def row(rounds: list[dict[str, dict[str, Any]]], way: str) -> str:
    cells = []
    for what in ("whole", "cpu", "update"):
        mine = [found[way][what] for found in rounds]
        cells += [f"{statistics.median(mine):.2f}", peers.ratio(mine, [found[ONE_PROCESS][what] for found in rounds])]
    return " | ".join(cells)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stages"]:
        pages, state, embedder = map(Path, sys.argv[2:5])
        stages(pages, state, embedder, sys.argv[5] == "1")
    else:
        main()
