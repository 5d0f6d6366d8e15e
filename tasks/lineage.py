"""What an adapter learnt from: it travels inside the adapter's folder, so that it is sealed and found with it."""

from collections.abc import Sequence

from tasks.records import Record, text_digest
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
