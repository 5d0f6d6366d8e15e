"""A workspace as the pipeline leaves it, written by hand: enough to judge, seal, register and commit without running a stage."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tiny
from safetensors.numpy import save_file

from flows import ledger, promotion
from flows.candidate import Candidate, workspace_candidate
from flows.settings import Settings, read_settings
from tasks.golden import golden_record
from tasks.params import ARMS, PromptParams
from tasks.params_files import load
from tasks.prompts import pinned
from tasks.records import Record, folder_digest, read_json, write_json, write_jsonl, write_text

EMBEDDER = {
    "source": "folder", "id": "tiny", "revision": "", "query_prompt": "", "passage_prompt": "", "digest": "e" * 64,
    "dimension": 2, "max_tokens": 64, "pooling": "mean", "normalised": True, "fingerprint": [0.1, 0.2],
}  # fmt: skip


def model_folder(folder: Path, value: float, **source: str) -> None:
    folder.mkdir(parents=True)
    save_file({"w": np.full((2, 2), value, dtype=np.float32)}, folder / "model.safetensors")
    write_json(folder / "config.json", {"model_type": "llama"})
    write_json(folder / "tokenizer.json", {"version": "1.0"})
    write_text(folder / "chat_template.jinja", "{{ messages }}")
    write_json(folder / "tandem.json", {"source": "folder", "id": "tiny", "revision": ""} | source)


def write_workspace(root: Path, adapter: float = 1.0, fact: float = 1.0) -> Settings:
    """`root` as a clone after `dvc repro`; `fact` is what every arm's answers are worth. Returns its settings."""
    data = root / "data"
    shutil.copytree(tiny.ROOT / "params", root / "params")
    shutil.copyfile(tiny.ROOT / "dvc.yaml", root / "dvc.yaml")
    for name, values in tiny.SHRUNK.items():
        tiny.change_params(root, name, values)
    model_folder(data / "models/base", 1.0)
    model_folder(data / "models/embedder", 2.0)
    write_documents(root, {"page-1": "a", "page-2": "b", "page-3": "c", "page-4": "d"})
    write_json(data / "index/manifest.json", {"table": "t", "tag": "r", "rows": 3, "digest": "d" * 64, "embedder": EMBEDDER})
    write_json(data / "retriever/retriever.json", {"sides": "none"})
    write_json(data / "metrics/index.json", {"recall@10": 1.0})
    write_json(data / "retrieval/settings.json", {"text_weight": 1.0, "k": 1, "candidates": 10, "mode": "text"})
    write_jsonl(data / "questions/test.jsonl", [])
    write_text(root / "dvc.lock", "schema: '2.0'\nstages: {}\n")
    write_adapter(root, adapter)
    write_evaluation(root, fact)
    return settings_of(root)


def settings_of(root: Path) -> Settings:
    with tiny.inside(root):
        return read_settings({"TANDEM_USER": "a test"})


def tune_query_encoder(root: Path, value: float) -> None:
    """As the stage `retriever` leaves it. The plain embedder's digest is what the index's manifest says."""
    encoder = root / "data/retriever/encoder"
    shutil.rmtree(encoder, ignore_errors=True)
    model_folder(encoder, value)
    plain = folder_digest(root / "data/models/embedder")
    change(root / "data/index/manifest.json", embedder=EMBEDDER | {"digest": plain})
    tuned = {"digest": folder_digest(encoder), "tuned": {"sides": "query", "of": plain}}
    write_json(root / "data/retriever/retriever.json", {"sides": "query", "encoder": EMBEDDER | tuned})


def adopt_reranker(root: Path, value: float) -> None:
    """As the stage `retrieval` leaves it."""
    retrieval = root / "data/retrieval"
    model_folder(retrieval / "reranker", value)
    pinned = {"source": "folder", "id": "", "revision": "", "max_tokens": 64, "backend": "torch", "fingerprint": [0.5, -1.5]}
    write_json(retrieval / "reranker.json", pinned | {"digest": folder_digest(retrieval / "reranker")})
    change(retrieval / "settings.json", rerank=20)


def write_adapter(root: Path, value: float) -> None:
    shutil.rmtree(root / "data/adapter", ignore_errors=True)
    (root / "data/adapter").mkdir(parents=True)
    save_file({"lora_B": np.full((2, 2), value, dtype=np.float32)}, root / "data/adapter/adapter_model.safetensors")
    write_json(root / "data/adapter/adapter_config.json", {"peft_type": "LORA"})


def write_documents(root: Path, pages: dict[str, str]) -> None:
    """Page id -> text, which is its own digest here."""
    records = [{"id": page, "path": f"{page}.md", "text": text, "digest": text} for page, text in sorted(pages.items())]
    write_jsonl(root / "data/documents/documents.jsonl", records)


def write_evaluation(root: Path, fact: float, cheapest: str = "rag+lora", better: tuple[str, ...] = ()) -> None:
    """Every arm's answers are worth `fact`, those of `better` 1. By default the arm with all the pieces is the one served."""
    evaluation, questions = root / "data/evaluation", [f"q{number}" for number in range(12)]
    answers = [answer(question, f"page-{int(question[1:]) % 4}", arm, 1.0 if arm in better else fact, arm == cheapest)
               for arm in ARMS for question in questions]  # fmt: skip
    arm = {"metrics": {"primary": {"mean": fact, "low": fact, "high": fact, "n": 12}}, "cost": 1.0}
    report = {
        "format": 1, "questions": {"digest": "a" * 64, "count": 12, "unanswerable": 0}, "yardstick": "b" * 64, "retrieval": {},
        "arms": dict.fromkeys(ARMS, arm),
    }  # fmt: skip
    write_jsonl(evaluation / "answers.jsonl", answers)
    write_json(evaluation / "report.json", report)
    write_json(evaluation / "golden.json", {name: golden_record({}, [{"question": "q0", "answer": "x"}]) for name in ARMS})
    prompt = load(PromptParams, root / "params").model_copy(update={"precision": "float32"})
    write_json(evaluation / "prompt.json", pinned(prompt, {name: [] for name in ARMS}))


def answer(question: str, document: str, arm: str, fact: float, cheap: bool) -> Record:
    scores = {"fact": fact, "citation": fact, "style": fact, "abstained": 0.0, "primary": fact}
    return {
        "question": question, "text": question, "document": document, "arm": arm, "answer": f"x {question}", "reference": "x",
        "scores": scores, "prompt_tokens": 10 if cheap else 90, "completion_tokens": 5,
    }  # fmt: skip


def candidate_of(root: Path) -> Candidate:
    return workspace_candidate(settings_of(root))


def change(path: Path, **values: Any) -> None:
    """Set keys of a JSON file."""
    write_json(path, read_json(path) | values)


def judged(settings: Settings) -> promotion.Judgement:
    """What stands in the workspace, against what is live."""
    entries = ledger.read(settings.ledger)
    champion = ledger.live(entries)
    folder = None
    if champion:
        folder = promotion.champion_evaluation(settings, entries, champion, promotion.scratch(settings, "champion"))
    return promotion.judge(settings, candidate_of(settings.root), entries, folder)
