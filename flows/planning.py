"""What would run, and why: DVC's own status, followed downstream. Imports no torch, Prefect, LanceDB or MLflow."""

from typing import Any

from flows import glance, ledger, pipeline
from flows.comparing import document_changes
from flows.settings import Settings
from tasks.params import RetrieverParams
from tasks.params_files import load
from tasks.records import Record, iterate_jsonl


def plan(settings: Settings) -> Record:
    """{"stale": {stage: reasons}, "after": [stages that depend on them], "embedding": what the index would have to embed,
    "adapter_lag": pages, "next": command}."""
    nothing: Record = {"stale": {}, "after": [], "embedding": None}
    found = nothing if glance.nothing_touched(settings) else asked_of_dvc(settings)
    lag = adapter_lag(settings)
    return {**found, "adapter_lag": lag, "next": next_command(settings, found["stale"], lag)}


def asked_of_dvc(settings: Settings) -> Record:
    import networkx
    from dvc.stage import PipelineStage

    from flows.forecast import forecast

    with pipeline.repository(settings.root) as repo:
        graph = repo.index.graph
        paths = glance.watched(repo)
        seen = glance.look(paths)
        names = {stage.addressing: stage for stage in graph if isinstance(stage, PipelineStage)}
        stale = pipeline.stage_reasons(repo, list(names))  # not of data/raw.dvc: it would look at every document once more
        if not stale:
            glance.keep(settings, paths, seen)
        below = {child.addressing for stage in stale for child in networkx.ancestors(graph, names[stage])}
        after = [stage for stage in pipeline.order_in(repo, "evaluate") if stage in below and stage not in stale]
        return {"stale": stale, "after": after, "embedding": forecast(settings, repo, stale, after)}


def adapter_lag(settings: Settings) -> int:
    """Pages that were added, removed or changed since the corpus that the live release's adapter learnt from."""
    trained = first_with_live_adapter(settings, ledger.read(settings.ledger))
    documents = settings.root / "data/documents/documents.jsonl"
    if trained is None or not documents.exists():
        return 0
    now = {record["id"]: record["digest"] for record in iterate_jsonl(documents)}
    changes = document_changes(document_list(settings, trained), now)
    return sum(len(changes[kind]) for kind in ("changed", "added", "removed"))


def first_with_live_adapter(settings: Settings, entries: list[ledger.Entry]) -> ledger.Entry | None:
    """The first promotion that carried the adapter that is live now: it learnt from the corpus of that day."""
    live = ledger.live(entries)
    wanted = adapter_of(settings, str(live.release)) if live else None
    if wanted is None:
        return None
    promoted = (entry for entry in entries if entry.action == "promote")
    return next((entry for entry in promoted if adapter_of(settings, str(entry.release)) == wanted), None)


def adapter_of(settings: Settings, release: str) -> str | None:
    from flows.opening import manifest_text
    from tasks.manifest import load_release

    pinned = load_release(manifest_text(settings, release)).adapter
    return pinned.digest if pinned else None


def document_list(settings: Settings, entry: ledger.Entry) -> dict[str, Any]:
    import json

    from flows.evidence import open_evidence

    return dict(json.loads(open_evidence(settings.store, entry.evidence["documents"])))


def next_command(settings: Settings, stale: dict[str, list[str]], lag: int) -> str:
    live = ledger.live(ledger.read(settings.ledger))
    if not (settings.root / "data/raw.dvc").exists():
        return "tandem ingest --documents PATH --questions FILE"
    if live is None:
        return "tandem release"
    if not stale:
        return "nothing to do"
    if "models" in stale:
        return "tandem release"
    tuned = {"retriever"} if load(RetrieverParams, settings.root / "params").sides != "none" else set()
    learns = stale.keys() & {"examples", "adapter", *tuned}  # what a refresh leaves as it is
    if not learns or (lag and stale.keys() - learns):
        return "tandem refresh"
    return "tandem retrain"  # what is left is learnt: new pairs, params, or pages that only the index has seen
