"""What an adapter learnt from, and on which base: it travels inside the adapter's folder, to be sealed and found with it."""

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from tasks.artifacts import check_model_folder
from tasks.errors import InputError
from tasks.records import Record, folder_digests, read_json, text_digest, value_digest
from tasks.texts import comparable

LINEAGE = "lineage.json"
PIECES = {  # of a base model's folder: what an adapter's numbers mean something for
    "weights": ("*.safetensors", "config.json"),
    "tokenizer": ("tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.model"),
    "chat template": ("chat_template.*",),
}


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


def made_for(base: Path) -> dict[str, str]:
    """A digest of each of PIECES of a base model. Other files of its folder, such as where it came from, change no answer."""
    files = folder_digests(base)
    return {
        piece: value_digest({name: digest for name, digest in files.items() if any(fnmatch(name, each) for each in patterns)})
        for piece, patterns in PIECES.items()
    }


def check_fits(base: Path, adapter: Path) -> None:
    """Before a byte of an adapter is loaded. Raises InputError where it could run code, or was trained on another base
    model, or with another tokenizer or chat template; one made elsewhere that does not say is taken as it is."""
    check_model_folder(adapter)
    trained = lineage_of(adapter).get("base", {})
    here = made_for(base) if trained else {}
    other = [piece for piece in PIECES if trained and trained.get(piece) != here[piece]]
    if other:
        raise InputError(
            f"{adapter} was trained with other {' and '.join(other)} than those of {base}; put the base model back that it was "
            "trained with (params/models.yaml: base), or train another: tandem retrain"
        )
