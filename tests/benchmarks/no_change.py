"""Finding out that nothing changed, 10,000 Markdown files: `python tests/benchmarks/no_change.py [--folder F]`.

Every run is a fresh process on a corpus that it has brought up to date before; they take turns, and the time is that of the whole
process. `tandem plan` against `cocoindex update` (CocoIndex's own MiniLM-into-LanceDB example, and its --preview, which plans
only), LangChain's `index()` and LlamaIndex's `IngestionPipeline` on the same files; beside it `dvc repro` that has nothing to do,
and `tandem refresh`, the flow that a schedule starts, with a Prefect server of its own and against one that runs.

Ours is a clone whose whole chain has run, release included: the built-in MiniLM over the pages, and a tiny base model, which
this comparison never loads. The peers' first build takes random vectors: no run that is timed embeds anything (this is
checked). Needs the environments of `python tests/benchmarks/peers.py --setup`; 40 minutes, 3 GB.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import peers
from peers import Peer
from peers_corpus import write_pages

sys.path.insert(0, str(peers.ROOT / "tests"))

import tiny

SECTIONS = 2  # of a page
PLAN = "tandem plan"
COCOINDEX = "cocoindex update"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="kept, and used again where it is filled; else a temporary one")
    options = parser.parse_args()
    peers.check_there()
    if options.folder:
        compare(options.folder.absolute(), options.pages, options.rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), options.pages, options.rounds)


def compare(folder: Path, pages: int, rounds: int) -> None:
    prepare(folder, pages)
    print(peers.machine())
    for name in peers.names():
        print(f"{name}: {peers.versions(name, *peers.PACKAGES[name])}", flush=True)
    with prefect_server(folder / "clone") as url:
        ways = ours(folder / "clone", url) | theirs(folder)
        for run in ways.values():  # once for the disk's cache
            run()
        seconds = peers.in_turns(ways, rounds)
    show(seconds)


# --- What is compared, once brought up to date


def prepare(folder: Path, pages: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "pages").exists():
        write_pages(folder / "pages", pages, SECTIONS)
    if not (folder / "ready").exists():
        prepare_clone(folder)
        for peer in peers_of(folder):
            built = peer.run(stand_in=True)
            print(f"{peer.name}, {peer.way}: {built['rows']} rows built in {built['update']:.0f} s", flush=True)
        (folder / "ready").touch()


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


def environment(clone: Path, **more: str) -> dict[str, str]:
    return tiny.outside_environment(
        TANDEM_ROOT=str(clone), DVC_NO_ANALYTICS="1", DVC_SITE_CACHE_DIR=str(clone / ".tandem/dvc"), **more
    )


def ours(clone: Path, url: str) -> Mapping[str, Callable[[], float]]:
    def run(*command: str, **more: str) -> Callable[[], float]:
        return lambda: peers.timed([sys.executable, "-m", *command], environment(clone, **more), clone)

    check_nothing_to_do(clone)
    return {
        PLAN: run("flows.cli", "plan"),
        "dvc repro": run("dvc", "repro"),
        "tandem refresh, Prefect cold": run("flows.cli", "refresh"),
        "tandem refresh, Prefect running": run("flows.cli", "refresh", PREFECT_API_URL=url),
    }


def check_nothing_to_do(clone: Path) -> None:
    done = peers.finished([sys.executable, "-m", "flows.cli", "plan", "--json"], environment(clone), clone)
    found = json.loads(done.stdout)
    assert not found["stale"] and found["next"] == "nothing to do", found


def theirs(folder: Path) -> dict[str, Callable[[], float]]:
    named = {f"{peer.name}, {peer.way}": peer for peer in peers_of(folder)}
    example = named.pop("cocoindex, default")
    named.pop("cocoindex, tuned")  # another splitter, which no run without a change comes to
    return {
        COCOINDEX: lambda: update(example),
        f"{COCOINDEX} --preview": lambda: update(example, "--preview"),
        **{name: unchanged(peer) for name, peer in named.items()},
    }


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


@contextmanager
def prefect_server(clone: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    home = {"PREFECT_HOME": str(clone / ".tandem/prefect-running"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with (clone / ".tandem/server.log").open("w") as log:
        server = subprocess.Popen(command, env=tiny.outside_environment(**home), stdout=log, stderr=log)
        try:
            wait_until_there(f"http://127.0.0.1:{port}/api/health")
            yield f"http://127.0.0.1:{port}/api"
        finally:
            server.terminate()
            server.wait()


def wait_until_there(url: str) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(url, timeout=2)
        except OSError:
            time.sleep(1)
        else:
            return
    sys.exit("the Prefect server did not start")


# --- The table


def show(seconds: dict[str, list[float]]) -> None:
    flows = [cold + nothing for cold, nothing in zip(seconds["tandem refresh, Prefect cold"], seconds["dvc repro"], strict=True)]
    print("\n| | median seconds | least | most | times `tandem plan` |\n|---|---|---|---|---|")
    for way, found in {**seconds, "dvc repro + tandem refresh, Prefect cold": flows}.items():
        middle = sorted(found)[len(found) // 2]
        print(f"| {way} | {middle:.2f} | {min(found):.2f} | {max(found):.2f} | {peers.ratio(found, seconds[PLAN])} |")
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
