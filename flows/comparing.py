"""`tandem diff A B`: what changed between two releases, in documents, settings and measured quality."""

import json
from pathlib import Path
from typing import Any

import yaml

from flows import erasures, ledger
from flows.evidence import open_evidence
from flows.opening import manifest_text
from flows.settings import Settings
from flows.succession import promotion_of
from tasks.manifest import difference, load_release
from tasks.records import Record


def diff(settings: Settings, left: str, right: str) -> Record:
    """{"from", "to", "content": sentences, "documents": {...}, "metrics": {arm: {metric: [a, b]}}}."""
    entries = ledger.read(settings.ledger)
    a, b = ledger.find(entries, left), ledger.find(entries, right)
    old, new = (load_release(manifest_text(settings, each.release)) for each in (a, b))
    evidence = [promotion_of(entries, each.release).evidence for each in (a, b)]
    tombstones = erasures.standing(settings, entries)
    documents = [
        {page: digest for page, digest in sealed(settings, each["documents"]).items() if not tombstones.covers(page)}
        for each in evidence
    ]
    reports = [sealed(settings, each["report"]) for each in evidence]
    return {
        "from": {"number": a.number, "release": a.release},
        "to": {"number": b.number, "release": b.release},
        "content": difference(old, new),
        "params": param_changes(*(yaml.safe_load(open_evidence(settings.store, each["dvc.lock"])) for each in evidence)),
        "documents": document_changes(*documents),
        "metrics": metric_changes(*reports),
    }


def sealed(settings: Settings, digest: str) -> Any:
    return json.loads(open_evidence(settings.store, digest))


def document_changes(old: dict[str, str], new: dict[str, str]) -> Record:
    """A page whose text lives on under another id was renamed, not removed and added."""
    gone = {page: digest for page, digest in old.items() if page not in new}
    added = {page: digest for page, digest in new.items() if page not in old}
    by_digest = {digest: page for page, digest in gone.items()}
    renamed = {by_digest[digest]: page for page, digest in added.items() if digest in by_digest}
    return {
        "changed": sorted(page for page in old.keys() & new.keys() if old[page] != new[page]),
        "added": sorted(added.keys() - set(renamed.values())),
        "removed": sorted(gone.keys() - renamed.keys()),
        "renamed": dict(sorted(renamed.items())),
    }


def param_changes(old: Record, new: Record) -> dict[str, list[Any]]:
    """Every value of params/ that a stage was run with and that differs: `adapter.yaml: rank` -> [before, after]."""
    before, after = used_params(old), used_params(new)
    return {
        key: [before.get(key), after.get(key)]
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    }


def used_params(lock: Record) -> dict[str, Any]:
    files = [(file, values) for stage in lock["stages"].values() for file, values in stage.get("params", {}).items()]
    return {f"{Path(file).name}: {key}": value for file, values in files for key, value in values.items()}


def metric_changes(old: Record, new: Record) -> Record:
    changes: Record = {}
    for arm in old["arms"].keys() & new["arms"].keys():
        a, b = old["arms"][arm]["metrics"], new["arms"][arm]["metrics"]
        changes[arm] = {name: [round(a[name]["mean"], 4), round(b[name]["mean"], 4)] for name in sorted(a.keys() & b.keys())}
    return dict(sorted(changes.items()))
