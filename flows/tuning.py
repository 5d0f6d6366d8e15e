"""`tandem plan --tune`: which embedding backend and batch are fastest here without finding less. Changes nothing."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from flows.settings import Settings
from tasks.errors import InputError
from tasks.params import BACKENDS, EmbedderSource, IndexParams, ModelsParams
from tasks.params_files import load
from tasks.records import Record, read_jsonl

SECONDS = 60  # of measuring; loading and exporting the models comes before


def tune(settings: Settings, seconds: float) -> Record:
    """{"machine", "corpus": whether its passages were used, "measured": [a record a case], "skipped": {backend: why}, "now",
    "proposed", "faster": times}."""
    from tasks.tuning import BUDGETS, measure, propose, stand_ins

    source = load(ModelsParams, settings.root / "params").embedder
    budget = load(IndexParams, settings.root / "params").batch_tokens
    passages, questions = corpus(settings)
    now = {"backend": source.backend, "batch_tokens": budget}
    with embedders(source) as (folders, skipped):
        if source.backend in skipped:
            raise InputError(skipped[source.backend])
        measured = measure(folders, sorted({*BUDGETS, budget}), passages or stand_ins(), questions, seconds)
    best = propose(measured, source.backend, budget)
    before = next(record for record in measured if now.items() <= record.items())
    return {
        "machine": machine(),
        "corpus": bool(passages),
        "measured": measured,
        "skipped": skipped,
        "now": now,
        "proposed": {key: best[key] for key in now},
        "faster": round(best["passages_per_second"] / before["passages_per_second"], 2),
    }


def corpus(settings: Settings) -> tuple[list[Record], list[Record]]:
    """Passages and the validation questions that name a page; empty before they were made."""
    passages, questions = settings.root / "data/chunks/passages.jsonl", settings.root / "data/questions/validation.jsonl"
    asked = [record for record in read_jsonl(questions) if record["document"]] if questions.exists() else []
    return (read_jsonl(passages) if passages.exists() else []), asked


@contextmanager
def embedders(source: EmbedderSource) -> Iterator[tuple[dict[str, Path], dict[str, str]]]:
    """The embedder of the params once for each backend, in a folder that goes again; and why a backend cannot be had here."""
    from tasks.models import write_embedder

    folders: dict[str, Path] = {}
    skipped: dict[str, str] = {}
    with TemporaryDirectory(prefix="tandem-tune-") as scratch:
        for backend in BACKENDS:
            try:
                write_embedder(source.model_copy(update={"backend": backend}), Path(scratch) / backend)
                folders[backend] = Path(scratch) / backend
            except InputError as error:
                if backend == "torch":
                    raise
                skipped[backend] = str(error)
        yield folders, skipped


def machine() -> Record:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "gpu": gpu,
    }


def show(result: Record) -> str:
    lines = [f"{'backend':<12}{'batch_tokens':>13}{'passages/s':>12}{'cosine':>9}{'nDCG@10':>9}"]
    for each in result["measured"]:
        found = "-" if each["ndcg@10"] is None else f"{each['ndcg@10']:.3f}"
        lines.append(
            f"{each['backend']:<12}{each['batch_tokens']:>13}{each['passages_per_second']:>12.1f}{each['cosine']:>9.4f}{found:>9}"
        )
    lines += [f"{backend}: not measured: {why}" for backend, why in result["skipped"].items()]
    lines += [] if result["corpus"] else ["measured on made-up texts: there are no passages yet"]
    return "\n".join([*lines, verdict(result)])


def verdict(result: Record) -> str:
    best, now = result["proposed"], result["now"]
    if best == now:
        return (
            f"keep backend: {now['backend']} and batch_tokens: {now['batch_tokens']}; nothing here is clearly faster and as good"
        )
    again = "" if best["backend"] == now["backend"] else "; embeds the whole corpus again"
    return (
        f"{result['faster']:.1f} times as fast as now{again}:\n"
        f"  params/models.yaml  backend: {best['backend']}\n  params/index.yaml   batch_tokens: {best['batch_tokens']}"
    )
