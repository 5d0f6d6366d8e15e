"""Index, DVC's remote and MLflow's artifacts on S3: a local server stands for it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from buckets import BUCKET, Buckets, serving
from dying import at_once
from hashing import HashEmbedder, vectors_of
from running import clone_environment, run_tandem

from tasks.embedding import VectorStore
from tasks.encoders import PINNED
from tasks.errors import InputError, IntegrityError, TandemError
from tasks.index import bring_up_to_date, describe, index, write_rows
from tasks.index import settings as table_settings
from tasks.params import IndexParams
from tasks.params_files import load
from tasks.records import Record, value_digest, write_json, write_jsonl
from tasks.search import Index, open_version
from tasks.tables import connect, only_writer, open_table
from tasks.upkeep import check_answers, keep_versions

pytest.importorskip("moto", reason="`make test-stack` installs moto")
pytest.importorskip("boto3", reason="`make test-stack` installs boto3")
PARAMS = load(IndexParams, tiny.ROOT / "params")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buckets]:
    with serving(tmp_path_factory.mktemp("buckets")) as buckets:
        yield buckets


@pytest.fixture
def buckets(server: Buckets) -> Buckets:
    os.environ.update(server.environment)
    return server


def passage(number: int) -> Record:
    text = f"The van number {number} leaves at {number} past five."
    row = {"document": "page", "heading": "Page", "text": text, "embedded": f"Page\n{text}"}
    return row | {"id": value_digest(["page", "Page", text, 0])}


def corpus(start: int, stop: int) -> list[Record]:
    return [passage(number) for number in range(start, stop)]


class Place:
    def __init__(self, name: str, folder: Path) -> None:
        self.store, self.vectors, self.model = f"s3://{BUCKET}/{name}", folder / "vectors.sqlite", HashEmbedder()

    def manifest(self, passages: list[Record]) -> dict[str, Any]:
        return describe(passages, dict(self.model.identity()), table_settings(PARAMS))

    def build(self, passages: list[Record]) -> dict[str, Any]:
        manifest = self.manifest(passages)
        with only_writer(self.store):
            bring_up_to_date(self.store, manifest, passages, self.model, self.vectors, PARAMS)  # type: ignore[arg-type]
        return manifest

    def holds(self, passages: list[Record]) -> bool:
        found = open_version(self.store, self.manifest(passages)).search().limit(10_000).to_arrow()["id"].to_pylist()
        return sorted(found) == sorted(row["id"] for row in passages)


def test_a_build_a_refresh_a_search_and_a_maintenance(buckets: Buckets, tmp_path: Path) -> None:
    place = Place("life", tmp_path)
    old = place.build(corpus(0, 8))
    new = place.build(corpus(2, 10))
    assert place.holds(corpus(0, 8)) and place.holds(corpus(2, 10))
    searcher = Index(place.store, old, place.model)  # type: ignore[arg-type]
    found = searcher.search("van number 1 leaves", {"candidates": 5, "k": 1, "text_weight": 0.5})
    assert found[0]["text"] == "The van number 1 leaves at 1 past five."

    keep_versions(place.store, {new["table"]: [new["tag"]]}, grace=0.0)

    assert place.holds(corpus(2, 10))
    check_answers(open_version(place.store, new))
    with pytest.raises(IntegrityError, match="has no version tagged"):
        open_version(place.store, old)


def test_every_commit_is_a_write_that_fails_where_another_was_first(buckets: Buckets, tmp_path: Path) -> None:
    place = Place("commits", tmp_path)
    place.build(corpus(0, 8))
    place.build(corpus(2, 10))
    commits = [condition for path, condition, _ in buckets.writes() if "/commits/" in path and "/_versions/" in path]
    assert commits == ["*"] * 4


def compete(environment: dict[str, str], name: str, folder: str, start: int, barrier: Any, results: Any) -> None:
    """In a process of its own: three builds of three corpora that nobody else builds."""
    os.environ.update(environment)
    place = Place(name, Path(folder))
    barrier.wait()
    for number in range(start, start + 3):
        try:
            place.build(corpus(number, number + 20))
            results.put((number, "built"))
        except TandemError as error:
            results.put((number, str(error)))


def both(buckets: Buckets, name: str, folder: Path) -> dict[int, str]:
    """Start of the corpus -> what became of its build."""
    return at_once(compete, [(buckets.environment, name, str(folder), start) for start in (0, 100)], answers=6)


@pytest.mark.parametrize(("name", "before"), [("race", 40), ("first-race", 0)])
def test_of_two_writers_at_once_each_gets_its_rows_or_is_told_and_the_next_build_mends_it(
    buckets: Buckets, tmp_path: Path, name: str, before: int
) -> None:
    place = Place(name, tmp_path)
    if before:
        place.build(corpus(0, before))
    outcome = both(buckets, name, tmp_path)
    refused = [path for path, _, status in buckets.writes() if f"/{name}/" in path and status == "412"]
    assert refused, "the two writers never met"
    for start, said in outcome.items():
        if said == "built":
            assert place.holds(corpus(start, start + 20))
        else:
            assert "another writer" in said or "was first" in said, said
            place.build(corpus(start, start + 20))
    assert all(place.holds(corpus(start, start + 20)) for start in outcome)


def test_two_writers_who_saw_the_same_version_insert_the_same_passages_once(buckets: Buckets, tmp_path: Path) -> None:
    place = Place("twice", tmp_path)
    manifest = place.build(corpus(0, 5))
    rows = corpus(5, 9)
    cache = VectorStore(place.vectors, place.model.digest)
    cache.put([row["embedded"] for row in rows], vectors_of([row["embedded"] for row in rows]))
    handles = [open_table(connect(place.store), manifest["table"]) for _ in range(2)]
    for handle in handles:
        write_rows(None, handle, manifest, rows, [], cache)
    newest = open_table(connect(place.store), manifest["table"])
    assert newest is not None and newest.count_rows() == 9


@pytest.mark.parametrize(
    ("store", "environment", "said"),
    [
        ("s3://no-such-bucket/index", {}, "bucket does not exist"),
        (f"s3://{BUCKET}/index", {"AWS_ALLOW_HTTP": "false"}, "needs AWS_ALLOW_HTTP=true"),
        ("ftp://host/index", {}, "has no safe commit"),
        ("s3:/bucket/index", {}, "a bucket is missing"),
    ],
)
def test_storage_that_cannot_be_used_is_refused_before_anything_is_embedded(
    buckets: Buckets, tmp_path: Path, tiny_embedder: Path, store: str, environment: dict[str, str], said: str
) -> None:
    os.environ.update(environment)
    write_jsonl(tmp_path / "chunks/passages.jsonl", corpus(0, 2))
    embedder = tiny.identified(tiny_embedder, tmp_path / "embedder")
    write_json(tmp_path / "retriever" / PINNED, {"sides": "none"})
    out, metrics = tmp_path / "out", tmp_path / "m.json"
    with pytest.raises(InputError, match=said) as found:
        index(
            tmp_path / "chunks", embedder, tmp_path / "retriever", out, metrics, store, tmp_path / "v.sqlite", PARAMS
        )  # fmt: skip
    assert store in str(found.value)
    assert not (tmp_path / "v.sqlite").exists() and not (tmp_path / "out").exists()


# --- The whole chain


@pytest.fixture(scope="module")
def clone(
    server: Buckets, tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tiny_embedder: Path, days: dict[int, Path]
) -> Path:
    """A clone whose release 1 is live, with its index, its artifacts and DVC's remote in the bucket."""
    clone = tiny.make_clone(tmp_path_factory.mktemp("bucket") / "clone", tiny_base, tiny_embedder)
    ingest = ("ingest", "--documents", str(days[1] / "documents"), "--questions", str(days[1] / "questions.jsonl"))
    run_tandem(clone, *ingest, **places(server))
    run_tandem(clone, "release", **places(server))
    return clone


def places(server: Buckets) -> dict[str, str]:
    return server.environment | {"TANDEM_INDEX_URI": f"s3://{BUCKET}/index", "TANDEM_ARTIFACTS": f"s3://{BUCKET}/runs"}


def command(clone: Path, server: Buckets, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=clone, env=clone_environment(clone, **places(server)), capture_output=True, text=True,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_release_is_made_asked_checked_and_maintained(clone: Path, server: Buckets) -> None:
    assert server.keys("index/") and not (clone / ".tandem/index").exists()
    assert "release 1" in command(clone, server, "flows.cli", "ask", "How many days of holiday do bakers have?", "--arm", "rag")
    command(clone, server, "flows.cli", "doctor")
    command(clone, server, "flows.cli", "maintain")
    assert "release 1" in command(clone, server, "flows.cli", "ask", "When does the van leave?", "--arm", "rag")


def test_what_runs_record_lies_in_the_bucket_and_a_model_is_loaded_from_there(clone: Path, server: Buckets) -> None:
    names = {Path(key).name for key in server.keys("runs/")}
    assert {"answers.json", "dvc.lock", "gate.yaml", "MLmodel"} <= names
    assert not (clone / ".tandem/mlartifacts").exists()
    load_model = (
        "import mlflow; print(mlflow.pyfunc.load_model('models:/assistant@champion').predict(['When does the van leave?']))"
    )
    environment = clone_environment(clone, MLFLOW_TRACKING_URI=f"sqlite:///{clone / '.tandem/mlflow.db'}", **places(server))
    done = subprocess.run(
        [sys.executable, "-c", load_model], cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'release':" in done.stdout


def test_dvc_pushes_what_another_clone_pulls(clone: Path, server: Buckets, tmp_path: Path) -> None:
    command(clone, server, "dvc", "remote", "add", "--default", "--force", "storage", f"s3://{BUCKET}/dvc")
    assert "pushed" in command(clone, server, "dvc", "push", "data/chunks", "data/index")
    assert server.keys("dvc/files/md5/")
    other = tmp_path / "other"
    shutil.copytree(clone, other, ignore=shutil.ignore_patterns("cache", "chunks", "index", "tmp"))
    command(other, server, "dvc", "pull", "data/chunks", "data/index")
    for name in ("data/chunks/passages.jsonl", "data/index/manifest.json"):
        assert (other / name).read_bytes() == (clone / name).read_bytes()


def test_dvc_refuses_a_remote_of_a_scheme_that_it_does_not_know(clone: Path) -> None:
    done = tiny.dvc(clone, "remote", "add", "elsewhere", "ftp://host/dvc")
    assert done.returncode != 0 and "nsupported" in done.stderr
