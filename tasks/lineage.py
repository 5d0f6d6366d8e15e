"""What an adapter learnt from: it travels inside the adapter's folder, so that it is sealed and found with it."""

from collections.abc import Sequence
from pathlib import Path

from tasks.records import Record, read_json, text_digest
from tasks.texts import comparable

LINEAGE = "lineage.json"


def question_key(question: str) -> str:
    """A digest that is the same for a question written with other case, spaces or punctuation. The text itself stays out."""
    return text_digest(comparable(question))


def lineage(examples: Sequence[Record]) -> Record:
    """Questions (by digest) and pages (by id) of the training examples: for decontamination, and for erasure."""
    return {
        "questions": sorted({question_key(record["question"]) for record in examples}),
        "documents": sorted({record["document"] for record in examples if record["document"]}),
        "passages": sorted({passage for record in examples for passage in record["passages"]}),
    }


def lineage_of(adapter: Path | None) -> Record:
    """Empty where there is no adapter, and for one made elsewhere that does not say what it learnt."""
    if adapter is None or not (adapter / LINEAGE).exists():
        return lineage([])
    return dict(read_json(adapter / LINEAGE))


def learnt(known: Record, questions: Sequence[Record]) -> list[Record]:
    """Those that cannot judge an adapter of this lineage: it was trained on them, or on another question about their page."""
    keys, pages = set(known.get("questions", ())), set(known.get("documents", ()))
    return [record for record in questions if question_key(record["question"]) in keys or record["document"] in pages]
