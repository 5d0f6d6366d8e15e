"""How often a set of test questions was looked at: read from the verdicts that the ledger names."""

import json
from collections.abc import Iterable

from flows.evidence import open_evidence
from flows.ledger import Entry
from flows.settings import Settings
from tasks.looks import Glance, same_questions, sketch
from tasks.records import Record
from tasks.reports import Report


def earlier_looks(settings: Settings, entries: Iterable[Entry], report: Report) -> list[Glance]:
    """Every judgement against a champion by the test questions of this report, accepted or not, oldest first.

    One on broken evidence compared nothing and is no look; one from before looks were counted is a look by itself.
    """
    asked, found = sketch(answer.text or answer.question for answer in report.answers), []
    for digest in (entry.evidence["verdict"] for entry in entries if "champion report" in entry.evidence):
        verdict = json.loads(open_evidence(settings.store, digest))
        if verdict["comparisons"] and looked_at(verdict, asked, report.questions_digest):
            look = verdict.get("look")
            found.append(Glance(look["mark"] if look else digest, verdict["thresholds"]["rule"]))
    return found


def looked_at(verdict: Record, asked: str, digest: str) -> bool:
    look = verdict.get("look")
    return same_questions(look["asked"], asked) if look else bool(verdict["thresholds"]["questions"] == digest)
