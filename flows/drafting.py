"""`tandem draft-questions`: pairs for a person to accept, where a corpus has few. It writes one file and changes nothing."""

from pathlib import Path
from tempfile import TemporaryDirectory

from flows.settings import Settings
from tasks.errors import InputError
from tasks.params import ChunksParams, DocumentsParams, ModelsParams, PromptParams, QuestionsParams
from tasks.params_files import load
from tasks.params_verdict import EvaluateParams
from tasks.records import Record, read_jsonl, write_jsonl

MOST_TOKENS = 96  # of a question with its answer


def draft(settings: Settings, documents: list[str] | None, out: str, per_page: int, answer: str) -> Record:
    """{"drafts", "pages", "file", "says"}"""
    target = Path(out)
    check(target, per_page, answer)
    passages = read_passages(settings, documents)
    questions = settings.root / "data/raw/questions.jsonl"
    made = propose(settings, passages, read_jsonl(questions) if questions.exists() else [], per_page, answer)
    if not made:
        raise InputError(
            f"no draft came of {len(passages)} passages: their pages have {per_page} pairs each, or hold no plain facts"
        )
    write_jsonl(target, made)
    pages = len({record["document"] for record in made})
    says = (
        f'{len(made)} drafts from {pages} pages in {target}. Read each, mend it, set "status" to "accepted" or "rejected", add '
        f"your other pairs to the file, then: tandem ingest --documents ... --questions {target}"
    )
    return {"drafts": len(made), "pages": pages, "file": str(target), "says": says}


def check(target: Path, per_page: int, answer: str) -> None:
    if target.suffix.lower() != ".jsonl":
        raise InputError(f"--out {target}: drafts are written one a line; call the file .jsonl")
    if target.exists():
        raise InputError(f"{target} is there already, perhaps with what somebody accepted; name another file")
    if per_page < 1:
        raise InputError(f"--per-page {per_page}: at least 1")
    try:
        fits = "\0" in answer.format(value="\0")
    except (KeyError, IndexError, ValueError):
        fits = False
    if not fits:
        raise InputError(f'--answer {answer!r}: needs {{value}} and no other braces, such as "It is {{value}}."')


def read_passages(settings: Settings, documents: list[str] | None) -> list[Record]:
    """By the code of the stages, in a folder that goes again: an ingest needs pairs, and there may be none yet."""
    from tasks.chunks import chunks
    from tasks.documents import documents as read
    from tasks.intake import copy_corpus

    params, raw = settings.root / "params", settings.root / "data/raw/documents"
    if not documents and not raw.exists():
        raise InputError(
            "nothing was ingested yet; say where the documents lie: tandem draft-questions --documents PATH --out FILE"
        )
    with TemporaryDirectory(prefix="tandem-drafts-") as name:
        scratch = Path(name)
        if documents:
            raw = scratch / "raw"
            copy_corpus([Path(path) for path in documents], raw)
        read(raw, scratch / "documents", scratch / "files.jsonl", load(DocumentsParams, params))
        chunks(scratch / "documents", scratch / "chunks", scratch / "pages.jsonl", load(ChunksParams, params))
        return read_jsonl(scratch / "chunks/passages.jsonl")


def propose(settings: Settings, passages: list[Record], known: list[Record], per_page: int, answer: str) -> list[Record]:
    from tasks.drafting import draft_pairs
    from tasks.generation import Generator, decoding, resolved
    from tasks.models import locate

    params = settings.root / "params"
    prompt = resolved(load(PromptParams, params))
    base = locate(load(ModelsParams, params).base, settings.root / "infra/base_model/model")
    generator = Generator(base, None, decoding(prompt) | {"max_new_tokens": MOST_TOKENS})
    near, batch_tokens = load(QuestionsParams, params).near_duplicate, load(EvaluateParams, params).batch_tokens
    return draft_pairs(passages, known, generator, prompt, per_page, answer, near, batch_tokens)
