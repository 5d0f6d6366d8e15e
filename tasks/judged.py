"""One judgement and what it rested on: what the report's page and the model card are told from."""

from dataclasses import dataclass, field

from tasks.records import Record

WORDS = {
    "prompt": "the base model alone",
    "rag": "the base model with the pages that search finds",
    "lora": "the trained model alone",
    "rag+lora": "the trained model with the pages that search finds",
}


@dataclass(frozen=True)
class Judged:
    """One judgement and what it rested on. `changes`: as `flows.comparing` tells them, {"content", "documents", "params"}."""

    name: str  # "Release 2", or "Candidate 1d320147cf80"
    outcome: str  # promoted, accepted (by the gate; more may follow), refused
    at: str
    why: str  # of the ledger; empty while it is being decided
    release: Record  # the manifest
    identity: str
    report: Record
    answers: list[Record]
    verdict: Record
    champion: str | None = None  # "release 1"
    champion_arm: str | None = None
    champion_answers: list[Record] = field(default_factory=list)
    changes: Record = field(default_factory=dict)
    training: Record | None = None
    retrieval: Record | None = None
    examples: Record = field(default_factory=dict)  # how many of which kind, by split
    training_params: Record = field(default_factory=dict)
    judge: Record | None = None  # what a language model thought of the answers
    study: Record | None = None  # the newest `tandem study` of its base model; no evidence of this judgement

    @property
    def arm(self) -> str:
        return str(self.verdict.get("arm") or self.release["arm"])
