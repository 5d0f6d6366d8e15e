"""`tandem diff A B`: what changed between two releases, in documents, settings, measured quality and answers."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from flows import erasures, ledger
from flows.evidence import open_evidence
from flows.ledger import Entry
from flows.opening import manifest_text
from flows.settings import Settings
from flows.store import open_folder
from flows.succession import promotion_of
from tasks.errors import TandemError
from tasks.lineage import lineage_of
from tasks.manifest import Release, difference, load_release
from tasks.params import Arm
from tasks.records import Record
from tasks.tombstones import Tombstones, blanked


def diff(settings: Settings, left: str, right: str) -> Record:
    """From the first to the second: {"from", "to", "content": sentences, "params", "documents", "passages", "adapter",
    "questions", "metrics": {arm: {metric: {"from": interval, "to": interval}}}, "answers"}."""
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
    answers = [
        served_answers(settings, each, release.arm, tombstones) for each, release in zip(evidence, (old, new), strict=True)
    ]
    return {
        "from": {"number": a.number, "release": a.release, "arm": old.arm},
        "to": {"number": b.number, "release": b.release, "arm": new.arm},
        "content": difference(old, new),
        "params": param_changes(*(yaml.safe_load(open_evidence(settings.store, each["dvc.lock"])) for each in evidence)),
        "documents": document_changes(*documents),
        "passages": passage_changes(settings, old, new),
        "adapter": {"from": learnt_from(settings, entries, old), "to": learnt_from(settings, entries, new)},
        "questions": question_changes(*reports),
        "metrics": metric_changes(*reports),
        "answers": answer_changes(*answers),
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


def passage_changes(settings: Settings, old: Release, new: Release) -> Record:
    """How many came and went: a passage is its text and place, so one that was edited is another. None where the rows of a
    release are gone, as maintenance leaves it."""
    from tasks.search import open_version
    from tasks.tables import existing_ids

    found: Record = {"from": old.index.rows, "to": new.index.rows, "added": 0, "removed": 0}
    if old.index.digest == new.index.digest:
        return found
    try:
        before, after = (set(existing_ids(open_version(settings.index_uri, each.index.model_dump()))) for each in (old, new))
    except TandemError:
        return found | {"added": None, "removed": None}
    return found | {"added": len(after - before), "removed": len(before - after)}


def learnt_from(settings: Settings, entries: list[Entry], release: Release) -> Record | None:
    """The adapter: the release that it came with, and what it was trained on, where its folder says so and still is there."""
    if release.adapter is None:
        return None
    known: Record = {}
    with suppress(TandemError):
        known = lineage_of(open_folder(settings.store, release.adapter.digest))
    return {
        "digest": release.adapter.digest,
        "came_with": came_with(settings, entries, release),
        "questions": len(known["questions"]) if known.get("questions") else None,
        "documents": len(known["documents"]) if known.get("documents") else None,
    }


def came_with(settings: Settings, entries: list[Entry], release: Release) -> int | None:
    """The number of the first release with this adapter."""
    for found in ledger.known(entries):
        with suppress(TandemError):  # its manifest is damaged: `tandem doctor` tells
            if load_release(manifest_text(settings, found.release)).adapter == release.adapter:
                return found.number
    return None


def question_changes(old: Record, new: Record) -> Record:
    """Whether both were measured on the same questions: other questions, other figures."""
    before, after = old["questions"], new["questions"]
    return {"same": before["digest"] == after["digest"], "from": before["count"], "to": after["count"]}


def metric_changes(old: Record, new: Record) -> Record:
    """Means with their intervals, by arm, of what both measured."""
    return {
        arm: {
            name: {"from": old["arms"][arm]["metrics"][name], "to": new["arms"][arm]["metrics"][name]}
            for name in sorted(old["arms"][arm]["metrics"].keys() & new["arms"][arm]["metrics"].keys())
        }
        for arm in sorted(old["arms"].keys() & new["arms"].keys())
    }


def served_answers(settings: Settings, evidence: dict[str, str], arm: Arm, erased: Tombstones) -> dict[str, Record]:
    """By question, those of the arm that the release serves; without what was erased since."""
    records = (json.loads(line) for line in open_evidence(settings.store, evidence["answers"]).splitlines() if line.strip())
    return {record["question"]: blanked(record, erased.covers) for record in records if record["arm"] == arm}


def answer_changes(old: dict[str, Record], new: dict[str, Record]) -> Record:
    """Of the questions that both were asked, those that are answered in other words, what lost most first."""
    common = old.keys() & new.keys()
    changed = [
        {
            "question": new[key]["text"],
            "from": old[key]["answer"],
            "to": new[key]["answer"],
            "score": [round(each[key]["scores"]["primary"], 4) for each in (old, new)],
        }
        for key in sorted(common)
        if old[key]["answer"] != new[key]["answer"]
    ]
    gains = [each["score"][1] - each["score"][0] for each in changed]
    return {
        "asked_of_both": len(common),
        "better": sum(gain > 0 for gain in gains),
        "worse": sum(gain < 0 for gain in gains),
        "changed": sorted(changed, key=lambda each: each["score"][1] - each["score"][0]),
    }
