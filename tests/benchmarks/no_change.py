"""Finding out that nothing changed, 10,000 Markdown files: `python tests/benchmarks/no_change.py [--files N] [--folder F]`.

Every run is a fresh process on a corpus that it has brought up to date before; they take turns, and the time is that of the whole
process (LangChain's and LlamaIndex's until the table is up to date). `tandem plan` against `cocoindex update` (CocoIndex's own
MiniLM-into-LanceDB example, and its --preview, which plans only), LangChain's `index()` and LlamaIndex's `IngestionPipeline` on
the same files; beside it (--part flows) `dvc repro` that has nothing to do, and `tandem refresh`, the flow that a schedule
starts: with a Prefect server of its own, against one that runs (`tandem release` too), and as a deployment's run by a worker.

Ours is a clone whose whole chain has run, release included: the built-in MiniLM over the pages, and a tiny base model, which
this comparison never loads. The peers' first build takes random vectors: no run that is timed embeds anything (this is
checked). Needs the environments of `python tests/benchmarks/peers.py --setup`, but for --part flows; 40 minutes, 3 GB.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import peers
from peers import Peer
from peers_corpus import write_pages
from prefect_runs import environment, prefect_server, run_of_deployment, show_runs, worker

sys.path.insert(0, str(peers.ROOT / "tests"))

import tiny

SECTIONS = 2  # of a page
Runs = dict[str, Callable[[], float]]
PLAN = "tandem plan"
COCOINDEX = "cocoindex update"
REPRO, COLD = "dvc repro", "tandem refresh, Prefect cold"
FLOWS = f"{REPRO} + {COLD}"
ROUNDS_OF_SLOW = 3  # of what starts servers, or loads torch and the model before it looks: half a minute each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--part", choices=("cocoindex", "flows", "others", "all"), default="all")
    parser.add_argument("--folder", type=Path, help="kept, and used again where it is filled; else a temporary one")
    options = parser.parse_args()
    if options.part != "flows":
        peers.check_there(peers.names())
    if options.folder:
        compare(options.folder.absolute(), options.files, options.rounds, options.part)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), options.files, options.rounds, options.part)


def compare(folder: Path, files: int, rounds: int, part: str) -> None:
    prepare(folder, files)
    if part != "flows":
        prepare_peers(folder)
    print(peers.machine(), flush=True)
    check_nothing_to_do(folder / "clone")
    if part in ("cocoindex", "all"):
        show(peers.in_turns(ours(folder / "clone") | cocoindex(folder), rounds))
    if part in ("flows", "all"):
        with prefect_server(folder / "clone") as url:
            settle(folder / "clone", url)
            found = peers.in_turns(ours(folder / "clone") | flows(folder / "clone", url), min(rounds, ROUNDS_OF_SLOW))
            show(found | {FLOWS: together(found[COLD], found[REPRO])})
            with worker(folder / "clone", url):
                show_runs([run_of_deployment(url) for _ in range(min(rounds, ROUNDS_OF_SLOW))])
    if part in ("others", "all"):
        plan = {PLAN: ours(folder / "clone")[PLAN]}
        show(peers.in_turns(plan | others(folder), min(rounds, ROUNDS_OF_SLOW)))


# --- What is compared, once brought up to date


def prepare(folder: Path, files: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "pages").exists():
        write_pages(folder / "pages", files, SECTIONS)
    if not (folder / "ready").exists():
        prepare_clone(folder)
        (folder / "ready").touch()


def prepare_peers(folder: Path) -> None:
    for name in peers.names():
        print(f"{name}: {peers.versions(name, *peers.PACKAGES[name])}", flush=True)
    if not (folder / "peers-ready").exists():
        for peer in peers_of(folder):
            built = peer.run(stand_in=True)
            print(f"{peer.name}, {peer.way}: {built['rows']} rows built in {built['update']:.0f} s", flush=True)
        (folder / "peers-ready").touch()


def prepare_clone(folder: Path) -> None:
    """A clone after `tandem release`: the pages, and beside them the tiny corpus whose questions the chain needs."""
    clone = tiny.make_clone(folder / "clone", tiny.write_base(folder / "base"), tiny.write_embedder(folder / "embedder"))
    tiny.change_params(clone, "models.yaml", {"embedder": {"source": "builtin", "id": "", "backend": "onnx-int8"}})
    tiny.change_params(clone, "chunks.yaml", {"max_words": 80, "join_below_words": 20})  # a passage a section
    corpus = tiny.write_corpus(folder / "questioned")
    for words in (
        [
            "ingest",
            "--documents",
            str(folder / "pages"),
            str(corpus / "documents"),
            "--questions",
            str(corpus / "questions.jsonl"),
        ],
        ["release"],
    ):
        started = time.monotonic()
        peers.finished([sys.executable, "-m", "flows.cli", *words], environment(clone), clone)
        print(f"tandem {words[0]}: {time.monotonic() - started:.0f} s", flush=True)


def peers_of(folder: Path) -> list[Peer]:
    model = folder / "model"
    if not model.exists():
        write_model(model)
    return [Peer(name, way, folder / "pages", folder, model) for name in peers.names() for way in ("default", "tuned")]


def write_model(folder: Path) -> None:
    """The embedder as the peers read it: the same MiniLM, in float32."""
    from tasks.models import write_embedder
    from tasks.params import ModelsParams
    from tasks.params_files import load

    source = load(ModelsParams, peers.ROOT / "params").embedder
    write_embedder(source.model_copy(update={"backend": "torch"}), folder)


# --- The runs


def run(clone: Path, *command: str, **more: str) -> Callable[[], float]:
    return lambda: peers.timed([sys.executable, "-m", *command], environment(clone, **more), clone)


def ours(clone: Path) -> Runs:
    return {PLAN: run(clone, "flows.cli", "plan"), REPRO: run(clone, "dvc", "repro")}


def flows(clone: Path, url: str) -> Runs:
    running = {
        f"tandem {flow}, Prefect running": run(clone, "flows.cli", flow, PREFECT_API_URL=url) for flow in ("refresh", "release")
    }
    return {COLD: run(clone, "flows.cli", "refresh"), **running}


def settle(clone: Path, url: str) -> None:
    """Each flow has found nothing new once, the whole way, and then says so at once."""
    for flow in ("release", "refresh") * 2:
        started = time.monotonic()
        done = peers.finished([sys.executable, "-m", "flows.cli", flow, "--json"], environment(clone, PREFECT_API_URL=url), clone)
        said = json.loads(done.stdout)["reasons"]
        print(f"tandem {flow}: {time.monotonic() - started:.0f} s, {said[0]}", flush=True)
    assert said[0].startswith("nothing new"), said


def check_nothing_to_do(clone: Path) -> None:
    done = peers.finished([sys.executable, "-m", "flows.cli", "plan", "--json"], environment(clone), clone)
    found = json.loads(done.stdout)
    assert not found["stale"] and found["next"] == "nothing to do", found


def cocoindex(folder: Path) -> Runs:
    """Its example as it is: tuned, it has another splitter, which no run without a change comes to."""
    example = next(peer for peer in peers_of(folder) if (peer.name, peer.way) == ("cocoindex", "default"))
    return {COCOINDEX: lambda: update(example), f"{COCOINDEX} --preview": lambda: update(example, "--preview")}


def others(folder: Path) -> Runs:
    return {f"{peer.name}, {peer.way}": unchanged(peer) for peer in peers_of(folder) if peer.name != "cocoindex"}


def update(peer: Peer, *options: str) -> float:
    program = str(peers.python(peer.name).with_name("cocoindex"))
    runner = str(peers.LOCKS / peer.name / "run.py")
    return peers.timed([program, "update", *options, runner], peer.environment(stand_in=False), peer.folder)


def unchanged(peer: Peer) -> Callable[[], float]:
    def run() -> float:
        found = peer.run()
        assert found["embedded"] == 0, found
        return float(found["whole"])

    return run


# --- The table


def together(left: list[peers.Seconds], right: list[peers.Seconds]) -> list[peers.Seconds]:
    return [(one[0] + other[0], one[1] + other[1]) for one, other in zip(left, right, strict=True)]


def show(seconds: dict[str, list[peers.Seconds]]) -> None:
    print("\n| | median seconds | least to most | times `tandem plan` | processor seconds | times `tandem plan` |")
    print("|---|---|---|---|---|---|")
    for way, found in seconds.items():
        (clock, cpu), (ours, ours_cpu) = zip(*found, strict=True), zip(*seconds[PLAN], strict=True)
        spread = f"{statistics.median(clock):.2f} | {min(clock):.2f} to {max(clock):.2f} | {peers.ratio(clock, ours)}"
        print(f"| {way} | {spread} | {statistics.median(cpu):.2f} | {peers.ratio(cpu, ours_cpu)} |")
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
