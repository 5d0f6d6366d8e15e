"""What would run, and why: DVC's own status, followed downstream. Imports no torch, Prefect, LanceDB or MLflow."""

from typing import Any

from flows import ledger, pipeline
from flows.comparing import document_changes
from flows.forecast import forecast
from flows.settings import Settings
from tasks.records import Record, iterate_jsonl


def plan(settings: Settings) -> Record:
    """{"stale": {stage: reasons}, "after": [stages that depend on them], "embedding": what the index would have to embed,
    "adapter_lag": pages, "next": command}."""
    import networkx
    from dvc.stage import PipelineStage

    with pipeline.repository(settings.root) as repo:
        reasons = pipeline.stage_reasons(repo)
        graph = repo.index.graph
        names = {stage.addressing: stage for stage in graph if isinstance(stage, PipelineStage)}
        stale = {stage: why for stage, why in reasons.items() if stage in names}
        below = {child.addressing for stage in stale for child in networkx.ancestors(graph, names[stage])}
        after = [stage for stage in pipeline.stage_order(settings.root, "evaluate") if stage in below and stage not in stale]
        embedding = forecast(settings, repo, stale, after)
    lag = adapter_lag(settings)
    return {
        "stale": stale,
        "after": after,
        "embedding": embedding,
        "adapter_lag": lag,
        "next": next_command(settings, stale, lag),
    }


def adapter_lag(settings: Settings) -> int:
    """Pages that were added, removed or changed since the corpus that the live release's adapter learnt from."""
    entries = ledger.read(settings.ledger)
    trained = next(
        (entry for entry in reversed(entries) if entry.action == "promote" and learnt_here(settings, entry, entries)), None
    )
    documents = settings.root / "data/documents/documents.jsonl"
    if trained is None or not documents.exists():
        return 0
    now = {record["id"]: record["digest"] for record in iterate_jsonl(documents)}
    changes = document_changes(document_list(settings, trained), now)
    return sum(len(changes[kind]) for kind in ("changed", "added", "removed"))


def learnt_here(settings: Settings, entry: ledger.Entry, entries: list[ledger.Entry]) -> bool:
    """Whether `entry` is the first promotion that carried the adapter that is live now."""
    live = ledger.live(entries)
    if live is None:
        return False
    wanted = adapter_of(settings, str(live.release))
    carriers = [each for each in entries if each.action == "promote" and adapter_of(settings, str(each.release)) == wanted]
    return wanted is not None and bool(carriers) and entry == carriers[0]


def adapter_of(settings: Settings, release: str) -> str | None:
    from flows.opening import manifest_text
    from tasks.manifest import load_release

    pinned = load_release(manifest_text(settings, release)).adapter
    return pinned.digest if pinned else None


def document_list(settings: Settings, entry: ledger.Entry) -> dict[str, Any]:
    import json

    from flows.store import open_file

    return dict(json.loads(open_file(settings.store, entry.evidence["documents"])))


def next_command(settings: Settings, stale: dict[str, list[str]], lag: int) -> str:
    live = ledger.live(ledger.read(settings.ledger))
    if not (settings.root / "data/raw.dvc").exists():
        return "tandem ingest --documents PATH --questions FILE"
    if live is None:
        return "tandem release"
    trains = {"models", "examples", "adapter"} & stale.keys()
    if not stale:
        return "nothing to do"
    return "tandem refresh" if not trains or lag else "tandem release"
