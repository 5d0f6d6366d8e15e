"""The flows themselves, with stand-ins for what needs a model or a server: a hash for the embedder, the best passage for an
answer, plain functions for Prefect's tasks, DVC in this process. Everything that a crash can tear is real: ledger, store, Lance,
MLflow on SQLite, DVC's files, locks. For processes of their own (tests/dying.py): what is replaced here stays replaced."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny
from dvc.exceptions import DvcException
from hashing import HashEmbedder
from prefect import Flow, Task
from workspace import settings_of, write_adapter, write_evaluation, write_workspace

from flows import ledger, measuring, pipeline, presenting, promotion, steps
from flows.children import dvc_error
from flows.opening import open_release
from flows.settings import Settings
from flows.store import open_file
from tasks.golden import golden_record
from tasks.params import ARMS, uses_passages
from tasks.records import (
    Record,
    file_digest,
    folder_digest,
    read_json,
    read_jsonl,
    value_digest,
    write_json,
    write_jsonl,
    write_text,
)
from tasks.search import Index, widened

PAGES = 8
QUESTIONS = [f"When does van number {number} leave?" for number in range(12)]
WORSE = "worse"  # in the questions of a corpus: what is then evaluated is refused


class FolderEmbedder(HashEmbedder):
    """Known by the folder in which a model would lie."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.digest, self.folder = folder_digest(folder), folder


def write_corpus(folder: Path, edition: int, asked: str = "as before") -> Path:
    """documents/ of which every page says its edition, and questions.jsonl."""
    for number in range(PAGES):
        text = f"Edition {edition}. The van number {number} leaves at {number + edition} past five."
        write_text(folder / f"documents/page-{number}.md", text)
    write_jsonl(folder / "questions.jsonl", [{"question": question, "asked": asked} for question in QUESTIONS])
    return folder


# --- Stages


def reproduce(session: Any, target: str, leave: tuple[str, ...] = ()) -> None:
    """documents, chunks, index and retrieval, from data/raw."""
    import tasks.index
    from tasks.params import IndexParams
    from tasks.params_files import load

    settings: Settings = session.settings
    data = settings.root / "data"
    texts = {path.stem: path.read_text() for path in sorted((data / "raw/documents").glob("*.md"))}
    records = [{"id": page, "path": f"{page}.md", "text": text, "digest": value_digest(text)} for page, text in texts.items()]
    write_jsonl(data / "documents/documents.jsonl", records)
    if target == "questions":
        return
    passages = [{"id": value_digest([page, text]), "document": page, "heading": page, "text": text, "embedded": text}
                for page, text in texts.items()]  # fmt: skip
    write_jsonl(data / "chunks/passages.jsonl", passages)
    tasks.index.index(
        data / "chunks", data / "models/embedder", data / "retriever", data / "index", data / "metrics/index.json",
        settings.index_uri, settings.vectors, load(IndexParams, settings.root / "params"),
    )  # fmt: skip
    write_json(data / "retrieval/settings.json", {"text_weight": 0.5, "k": 2, "candidates": 5, "fusion": "ratio"})
    lock_outputs(settings.root)


OUTPUTS = {"chunks": ["data/chunks"], "adapter": ["data/adapter", "data/metrics/adapter.json", "data/plots/adapter"]}


def lock_outputs(root: Path) -> None:
    """As `dvc repro` leaves it: passages and adapter in the cache, and named in dvc.lock."""
    write_json(root / "data/metrics/adapter.json", {"loss": 1.0})
    write_text(root / "data/plots/adapter/loss.txt", "a curve")
    stages = pipeline.read_lock(root)["stages"]
    for stage, paths in OUTPUTS.items():
        if all((root / path).exists() for path in paths):  # else what it made was lost, and the entry stays
            stages[stage] = {"cmd": "a stand-in", "outs": [into_cache(root, path) for path in paths]}
    write_text(root / "dvc.lock", json.dumps({"schema": "2.0", "stages": stages}, indent=1))


def into_cache(root: Path, path: str) -> Record:
    if (root / path).is_file():
        digest, size = cached_file(root, root / path)
        return {"path": path, "hash": "md5", "md5": digest, "size": size}
    found = {file.name: cached_file(root, file) for file in sorted((root / path).iterdir())}
    listing = json.dumps([{"md5": digest, "relpath": name} for name, (digest, _) in found.items()]).encode()
    digest = f"{hashlib.md5(listing, usedforsecurity=False).hexdigest()}.dir"
    copy_to_cache(root, digest, listing)
    return {"path": path, "hash": "md5", "md5": digest, "size": sum(size for _, size in found.values()), "nfiles": len(found)}


def cached_file(root: Path, file: Path) -> tuple[str, int]:
    data = file.read_bytes()
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    copy_to_cache(root, digest, data)
    return digest, len(data)


def copy_to_cache(root: Path, digest: str, data: bytes) -> None:
    target = root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_suffix(".tmp")
        aside.write_bytes(data)
        aside.replace(target)


def reproduce_only(session: Any, stages: list[str]) -> None:
    """The stage `evaluate`: answers that are all worth the same, with the pages that the index really finds."""
    assert stages == ["evaluate"]
    evaluate(session.settings)


def evaluate(settings: Settings) -> None:
    root = settings.root
    questions = root / "data/raw/questions.jsonl"
    asked = read_jsonl(questions)[0]["asked"]
    write_evaluation(root, fact=0.5 if asked == WORSE else 1.0)
    manifest, retrieval = (read_json(root / "data" / name) for name in ("index/manifest.json", "retrieval/settings.json"))
    index = Index(settings.index_uri, manifest, FolderEmbedder(root / "data/models/embedder"))  # type: ignore[arg-type]
    ranked = {question: [hit["document"] for hit in index.search(question, widened(retrieval))] for question in QUESTIONS}
    folder = root / "data/evaluation"
    answers = read_jsonl(folder / "answers.jsonl")
    for record in answers:
        record["text"] = QUESTIONS[int(record["question"][1:])]
        record["ranked_pages"] = ranked[record["text"]] if uses_passages(record["arm"]) else []
    write_jsonl(folder / "answers.jsonl", answers)
    best = [{"question": question, "answer": text_of(index.search(question, retrieval))} for question in QUESTIONS[:3]]
    write_json(folder / "golden.json", {arm: golden_record({}, best) for arm in ARMS})
    write_json(folder / "report.json", read_json(folder / "report.json") | {"yardstick": file_digest(questions)})


def text_of(hits: list[Record]) -> str:
    return " | ".join(hit["text"] for hit in hits)


# --- What answers


def ask(settings: Settings, name: str | None = None) -> Record:
    """The golden questions, of the live release or of a named one: {"number", "release", "answers"}."""
    assistant, number = open_release(settings, name)
    answers = [text_of(assistant.index.search(question, assistant.release.retrieval)) for question in QUESTIONS[:3]]
    return {"number": number, "release": assistant.release_id, "answers": answers}


def check_whole(settings: Settings, name: str | None = None) -> Record:
    """Raises AssertionError where the answers are not those of exactly one release, the one that is said to answer."""
    given = ask(settings, name)
    entries = ledger.read(settings.ledger)
    promoted = next(each for each in reversed(entries) if each.action == "promote" and each.release == given["release"])
    golden = json.loads(open_file(settings.store, promoted.evidence["golden"]))
    assert given["answers"] == [each["answer"] for each in golden["answers"]], given
    assert given["number"] == promoted.number
    return given


def verify(settings: Settings, identity: str, golden: str) -> None:
    """As flows.verify does in a process of its own; here in this one, and by retrieval alone."""
    from flows.opening import manifest_text, open_manifest
    from tasks.failpoints import failpoint

    failpoint("promotion.before-verify")
    assistant = open_manifest(settings, manifest_text(settings, identity))
    for each in json.loads(open_file(settings.store, golden))["answers"]:
        assert text_of(assistant.index.search(each["question"], assistant.release.retrieval)) == each["answer"]


def remeasured(settings: Settings, *arguments: Any) -> tuple[list[Record], dict[str, Record]]:
    """For `measure_arms`, where the champion is asked new questions: it answers as well as the candidate."""
    answers = read_jsonl(settings.root / "data/evaluation/answers.jsonl")
    return answers, read_json(settings.root / "data/evaluation/golden.json")


# --- Instead of


def stand_in(settings: Settings) -> None:
    """From now on, in this process."""
    import mlflow.utils.environment

    import flows.ingest
    import flows.maintain
    import flows.refresh
    import flows.rollback
    import tasks.assistant
    import tasks.embedding
    import tasks.index

    for module in (tasks.assistant, tasks.embedding, tasks.index):
        module.Embedder = FolderEmbedder  # type: ignore[attr-defined]
    for module in (steps, flows.ingest, flows.maintain, flows.rollback, flows.refresh):
        for name, value in list(vars(module).items()):
            if isinstance(value, Task | Flow):
                setattr(module, name, value.fn)
    replaced: dict[Any, dict[str, Callable[..., Any]]] = {
        steps: {"reproduce": reproduce, "reproduce_only": reproduce_only},
        pipeline: {"dvc": dvc_here},
        presenting: {"show_judgement": nothing, "conclude": nothing},
        flows.maintain: {"conclude": nothing},
        flows.rollback: {"conclude": nothing},
        flows.ingest: {"conclude": nothing, "check": lambda *arguments: {"accepted": PAGES, "rejected": 0, "ingested": PAGES},
                       "assemble": assemble},
        promotion: {"verify": verify},
        mlflow.utils.environment: {"warn_dependency_requirement_mismatches": nothing},  # a second of looking at what is installed
        measuring: {
            "measure_arms": lambda *arguments: remeasured(settings),
            "score_answers": lambda answers, *arguments: answers,
            "summarise": lambda *arguments: read_json(settings.root / "data/evaluation/report.json"),
            "draw": nothing,
            "unseen_by": lambda folders, asked: asked,
        },
    }  # fmt: skip
    for module, names in replaced.items():
        for name, value in names.items():
            assert hasattr(module, name), f"{module} has no {name} to stand in for"
            setattr(module, name, value)


def nothing(*arguments: Any, **named: Any) -> None:
    """For what only shows."""


def dvc_here(settings: Settings, command: str, *words: str, **watching: Any) -> list[str]:
    """`dvc add` and `dvc checkout`, without a process of their own."""
    with pipeline.repository(settings.root) as repo:
        try:
            repo.add([words[-1]]) if command == "add" else repo.checkout([words[-1]], force=True)
        except DvcException as error:
            raise dvc_error(error) from error
    return []


def assemble(
    settings: Settings, raw: Path, documents: list[str], questions: str, columns: Any
) -> tuple[Path, list[Any], list[str]]:
    shutil.copytree(documents[0], raw / "documents")
    shutil.copyfile(questions, raw / "questions.jsonl")
    return raw, [], []


# --- The world, and what happens in it


def write_world(root: Path, database: Path) -> None:
    """A clone with four releases; its fifth edition is ingested and not released, the sixth lies beside."""
    root.mkdir()
    write_workspace(root)
    shutil.copytree(tiny.ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    shutil.copyfile(tiny.ROOT / ".dvcignore", root / ".dvcignore")
    for edition in range(1, 7):
        write_corpus(root / f"editions/{edition}", edition, asked="newly" if edition > 4 else "as before")
    with tiny.inside(root):
        settings = enter(root)
        shutil.copyfile(database, settings.home / "mlflow.db")
        for edition in range(1, 5):
            ingest(edition)
            write_adapter(root, float(edition))
            retrain(settings)
        ingest(5)


def enter(root: Path) -> Settings:
    from flows.settings import prepare

    settings = settings_of(root)
    prepare(settings)
    stand_in(settings)
    return settings


def ingest(edition: int) -> None:
    from flows import ingest as module

    folder = Path("editions") / str(edition)
    module.ingest([str(folder / "documents")], str(folder / "questions.jsonl"))  # type: ignore[operator]


def retrain(settings: Settings) -> Any:
    """What `tandem release` does behind its stages, with the adapter that lies in the workspace."""
    from flows.candidate import workspace_candidate
    from flows.session import session
    from flows.shipping import ship

    with session("release") as opened:
        reproduce(opened, "retrieval")
        evaluate(opened.settings)
        outcome = ship(opened, workspace_candidate(opened.settings), ledger.read(opened.settings.ledger))
        assert outcome.outcome in ("promoted", "unchanged", "refused"), outcome
        return outcome
