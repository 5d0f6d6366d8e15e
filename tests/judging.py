"""A judgement made by hand, and texts that try to be more than text: what the report's page is tested with."""

from dataclasses import replace
from typing import Any

from tasks.judged import Judged
from tasks.params import ARMS, uses_passages
from tasks.records import Record

HOSTILE = (
    "<script>document.title = 'ran'</script>",
    "</script><script>document.title = 'ran'</script>",
    "</title></style><img src=x onerror=\"document.title='ran'\">",
    "<a href=\"javascript:document.title='ran'\">click</a>",
    "' onmouseover='document.title=\"ran\"' x='",
    "{{ 7 * 7 }} {% raw %}",
    "reads \u202eelbisivni\u202c here",
    "<svg/onload=\"document.title='ran'\"><iframe srcdoc='<script>parent.document.title=1</script>'>",
)


def metric(mean: float) -> Record:
    return {"mean": mean, "low": max(mean - 0.05, 0.0), "high": min(mean + 0.05, 1.0), "n": 8}


def release(arm: str) -> Record:
    digest = "d" * 64
    embedder = {"id": "tiny/embedder", "source": "folder", "digest": digest}
    return {
        "corpus": {"digest": digest, "documents": 4}, "index": {"rows": 9, "tag": "rows-1"}, "embedder": embedder,
        "base": {"id": "tiny/base", "source": "folder", "digest": digest, "revision": ""}, "adapter": {"digest": digest},
        "decoding": {"do_sample": False}, "retrieval": {"k": 1, "fusion": "ratio", "text_weight": 0.5}, "arm": arm,
    }  # fmt: skip


def answer(question: int, arm: str, text: str, right: bool) -> Record:
    passages = [
        {"id": f"{question:064d}", "document": f"page-{question % 4}", "heading": "A > B", "text": text, "score": 0.75},
        {"id": f"{question + 1:064d}", "document": "page-9", "heading": "C", "text": f"the other one {question}", "score": 0.5},
    ]  # fmt: skip
    return {
        "question": f"q{question}", "text": f"Question {question}? {text}", "document": f"page-{question % 4}", "arm": arm,
        "answer": f"{text} [1].", "reference": text, "fact": "x", "slices": [f"folder {question % 3}"],
        "passages": passages if uses_passages(arm) else [], "prompt_tokens": 9, "completion_tokens": 3,
        "scores": {"fact": float(right), "primary": float(right), "style": None},
    }  # fmt: skip


def answers(count: int, texts: tuple[str, ...]) -> list[Record]:
    """`rag+lora` has all of them right, the others every second one."""
    return [
        answer(number, arm, texts[number % len(texts)], arm == "rag+lora" or number % 2 == 0)
        for number in range(count)
        for arm in ARMS
    ]


def verdict(accepted: bool, against_champion: bool) -> Record:
    comparison = {"arm": "rag+lora", "other": "champion (rag)", "difference": 0.2, "low": None, "high": 0.3}
    means = dict(zip(ARMS, (0.1, 0.4, 0.2, 0.6 if accepted else 0.45), strict=True))
    rows = [{"arm": arm, "mean": mean, "low": 0.0, "high": 1.0, "cost": 100.0, "above_floors": mean > 0.5}
            for arm, mean in means.items()]  # fmt: skip
    return {
        "accepted": accepted, "arm": "rag+lora" if accepted else None, "arms": rows, "notes": ["A note."],
        "reasons": ["The first reason."] if accepted else ["No arm is above the floors.",
                                                           "rag+lora is not served: primary 0.450 is below the floor 0.5."],
        "comparisons": [comparison] if against_champion else [],
        "thresholds": {"rule": "not worse", "margin": 0.1, "primary": {"fact": 0.6, "style": 0.4}, "floors": {"primary": 0.5}},
        "changes": {"lost": ["q1"], "won": ["q3"], "texts": {}} if against_champion else {},
        "smallest_difference": 0.08, "questions_needed": 700,
    }  # fmt: skip


def judged(
    count: int = 8, texts: tuple[str, ...] = ("plain",), accepted: bool = True, champion: bool = True, **more: Any
) -> Judged:
    arms = {arm: {"metrics": {"primary": metric(0.5), "fact_answerable": metric(0.4)}, "cost": 100.0} for arm in ARMS}
    slices = {f"folder {n}": {arm: {"primary": metric(0.3 * n), "fact": None} for arm in ARMS} for n in range(3)}
    found = Judged(
        name="Release 2" if accepted else f"Candidate {'1' * 12}", outcome="promoted" if accepted else "refused",
        at="2026-11-21T10:37:47+00:00", why="", release=release("rag+lora"), identity="1" * 64,
        report={
            "questions": {"count": count, "unanswerable": 1, "digest": "a" * 64}, "arms": arms, "slices": slices,
            "retrieval": {"recall@10": 1.0, "recall@5": 0.5},
        },
        answers=answers(count, texts), verdict=verdict(accepted, champion),
    )  # fmt: skip
    if champion:
        live = [record for record in answers(count, texts) if record["arm"] == "rag"]
        documents = {"changed": ["page-1"], "renamed": {"a": "b"}, "added": [], "removed": []}
        changes = {"content": ["corpus: 3 -> 4 documents"], "params": {"adapter.yaml: rank": [8, 16]}, "documents": documents}
        found = replace(found, champion="release 1", champion_arm="rag", champion_answers=live, changes=changes)
    return replace(found, **more)


def costly(case: Judged) -> Judged:
    """With what a thousand answers cost, all of it."""
    for arm in case.report["arms"].values():
        thousand = {"prompt_tokens": 134_000.0, "completion_tokens": 12_000.0, "machine_hours": 0.1, "estimated_money": 1.5}
        arm.update(latency_p50=0.2, latency_p95=0.9, timed=12, peak_memory_mb=812.0, thousand=thousand)
    return case
