"""How often a set of test questions was looked at: read from the verdicts that the ledger names."""

import json
from collections.abc import Iterable

from flows.ledger import Entry
from flows.settings import Settings
from flows.store import open_file
from tasks.looks import Glance


def earlier_looks(settings: Settings, entries: Iterable[Entry], questions: str) -> list[Glance]:
    """Every judgement against a champion by the test questions of this digest, accepted or not, oldest first.

    One on broken evidence compared nothing and is no look; one from before looks were counted is a look by itself.
    """
    found = []
    for digest in (entry.evidence["verdict"] for entry in entries if "champion report" in entry.evidence):
        verdict = json.loads(open_file(settings.store, digest))
        if verdict["thresholds"]["questions"] == questions and verdict["comparisons"]:
            look = verdict.get("look")
            found.append(Glance(look["mark"] if look else digest, verdict["thresholds"]["rule"]))
    return found
