"""Raw question/answer pairs -> train, validation and test, disjoint by source page, without duplicates or
contamination.

JSON Lines per split, not an Arrow folder: equal content is then equal in bytes. The trainer makes a DatasetDict of
them.
"""

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from tasks.contamination import Known, refuse_contaminated
from tasks.errors import InputError
from tasks.exclusion import may_train, refuse_idle
from tasks.pairs import listing, placed_questions
from tasks.params import QuestionsParams
from tasks.records import Record, iterate_jsonl, write_json, write_jsonl
from tasks.stage import fresh_folder, run_stage, say
from tasks.texts import comparable

SPLITS = ("train", "validation", "test")
REPEATED = ("duplicate", "near-duplicate")  # how the reason of a rejected question begins; all others are about its page


def questions(raw: Path, documents: Path, out: Path, params: QuestionsParams) -> None:
    """Write out/{train,validation,test}.jsonl, sorted by id, of {"id", "question", "answer", "document" or null, "fact"
    or null}, and rejected.jsonl and counts.json.

    Raises InputError for faulty lines, too many rejected questions, an empty split and a test question that stands in
    train.
    """
    deal(placed_questions(raw, {}), documents, out, params)


def deal(placed: Sequence[tuple[str, Record]], documents: Path, out: Path, params: QuestionsParams) -> None:
    """The stage for questions that were read: an ingest names the places in the file that a person wrote, not in its copy."""
    pages = [record["id"] for record in iterate_jsonl(documents / "documents.jsonl")]
    accepted, rejected = judge(placed, pages, params.near_duplicate)
    refuse_many(rejected, len(placed), params.max_rejected)
    refuse_idle(params.train_never, pages)
    shares = {"train": params.train, "validation": params.validation, "test": params.test}
    splits = split(accepted, shares, params.seed, params.train_never)
    refuse_empty(splits)
    refuse_contaminated(splits, params.near_duplicate)
    say(f"{len(placed)} questions: {len(accepted)} accepted, {len(rejected)} rejected")
    fresh_folder(out)
    for name, records in splits.items():
        write_jsonl(out / f"{name}.jsonl", sorted(records, key=lambda record: record["id"]))
    write_jsonl(out / "rejected.jsonl", rejected)
    write_json(out / "counts.json", counts(splits, rejected))


def judge(
    placed: Iterable[tuple[str, Record]], pages: Iterable[str], near_duplicate: float
) -> tuple[list[Record], list[Record]]:  # fmt: skip
    """(accepted, with the id of their page; rejected as {"id", "place", "reason"}). Of equal or nearly equal questions the
    first that has no other fault is kept.
    """
    finder = PageFinder(pages)
    asked = Known(near_duplicate)
    accepted, rejected = [], []
    for place, record in placed:
        page, reason = finder.find(record["document"]) if record["document"] else (None, "")
        if not reason:
            reason = repetition(*asked.find(record))
        if reason:
            rejected.append({"id": record["id"], "place": place, "reason": reason})
        else:
            asked.add(place, record)
            accepted.append(record | {"document": page})
    return accepted, rejected


def repetition(place: str, alike: float) -> str:
    if not place:
        return ""
    if alike == 1:
        return f"duplicate of the question at {place}"
    return f"near-duplicate of the question at {place} ({alike:.2f} alike)"


class PageFinder:
    """Which page a person means by `it/vpn`, `it/vpn.md`, `./it/vpn.md` or, where only one page is called so, `vpn`."""

    def __init__(self, pages: Iterable[str]) -> None:
        self.pages = set(pages)
        self.by_name: dict[str, list[str]] = defaultdict(list)
        for page in sorted(self.pages):
            self.by_name[PurePosixPath(page).name].append(page)

    def find(self, name: str) -> tuple[str | None, str]:
        """(page, "") or (None, reason)"""
        path = PurePosixPath(unicodedata.normalize("NFC", name.replace("\\", "/")).lstrip("/"))
        forms = [name, str(path), str(path.with_suffix("")) if path.name else name]
        for form in forms:
            if form in self.pages:
                return form, ""
        for form in forms[1:]:
            same = self.by_name.get(PurePosixPath(form).name, [])
            if len(same) == 1:
                return same[0], ""
            if same:
                return None, f"{len(same)} pages are called {name!r}: {', '.join(same[:5])}; write the full path"
        return None, f"unknown page {name!r}"


def refuse_many(rejected: Sequence[Record], total: int, max_rejected: float) -> None:
    if len(rejected) > max_rejected * total:
        head = f"{len(rejected)} of {total} questions are rejected; params/questions.yaml allows a share of {max_rejected:g}"
        faults = [f"{record['place']}: {record['reason']}" for record in rejected]
        near = any(record["reason"].startswith(REPEATED[1]) for record in rejected)
        hint = " (near-duplicates are told apart by a `fact` for each; or raise near_duplicate there)" if near else ""
        raise InputError(listing(f"{head}; mend these{hint}", faults))


def split(
    records: Iterable[Record], shares: Mapping[str, float], seed: int, never: Sequence[str] = ()
) -> dict[str, list[Record]]:
    """Deal pages, not questions: each by a hash of the seed and its own name, so that a new page moves none of the
    others.

    A question that the corpus does not answer has no page and goes by its own words. Shares hold approximately. A page that may
    never be trained on is asked about in the test.
    """
    dealt: dict[str, list[Record]] = {name: [] for name in SPLITS}
    for record in records:
        if not may_train(record["document"], never):
            dealt["test"].append(record)
            continue
        kind = "page" if record["document"] else "question"
        position = uniform(f"{seed}\0{kind}\0{record['document'] or comparable(record['question'])}")
        bound = 0.0
        for name in SPLITS:
            bound += shares[name]
            if position < bound or name == SPLITS[-1]:
                dealt[name].append(record)
                break
    return dealt


def uniform(text: str) -> float:
    """In [0, 1), the same for the same text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6]) / 2**48


def refuse_empty(splits: Mapping[str, Sequence[Record]]) -> None:
    empty = [name for name in SPLITS if not splits[name]]
    if empty:
        pages = len({record["document"] for records in splits.values() for record in records})
        found = ", ".join(f"{name} {len(splits[name])}" for name in SPLITS)
        raise InputError(
            f"no question falls to {' and '.join(empty)} ({found}, from {pages} pages); whole pages are dealt, "
            "so ask about more pages, or change the shares in params/questions.yaml"
        )


def counts(splits: Mapping[str, Sequence[Record]], rejected: Sequence[Record]) -> Record:
    accepted = [record for records in splits.values() for record in records]
    kinds = Counter(next((kind for kind in REPEATED if record["reason"].startswith(kind)), "page") for record in rejected)
    return {
        "ingested": len(accepted) + len(rejected),
        "accepted": len(accepted),
        "rejected": len(rejected),
        "reasons": dict(sorted(kinds.items())),
        "unanswerable": sum(record["document"] is None for record in accepted),
        **{name: len(records) for name, records in splits.items()},
    }


if __name__ == "__main__":
    run_stage(questions)
