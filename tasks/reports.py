"""What the gate reads: the answers of every arm to one set of questions, and what is wrong with them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from tasks.errors import InputError
from tasks.params import ARMS
from tasks.records import Record, read_json, read_jsonl

FORMAT = 1


@dataclass(frozen=True)
class Answer:
    """One arm's answer to one question, by its scores (tasks.scores) and tokens. `document` is None where no page answers."""

    question: str
    document: str | None
    arm: str
    scores: Mapping[str, float | None]
    prompt_tokens: float
    completion_tokens: float
    text: str = ""  # of the question, for people
    slices: tuple[str, ...] = ()  # names, by tasks.slices
    given: str = ""  # what it says; "" where that is not known

    @property
    def page(self) -> str:
        """The unit of evidence: the source page; a question that no page answers stands for itself."""
        return f"page {self.document}" if self.document is not None else f"question {self.question}"

    @property
    def right(self) -> bool:
        """The fact is there; without a known fact, most of the reference is; where nothing answers, it says so."""
        return (self.scores.get("fact") or 0.0) >= 0.5


@dataclass(frozen=True)
class Report:
    """One evaluation.

    yardstick: a digest of all that turns answers into scores. served: the arm that is live (needed of a champion).
    index_recall: against the exact scan (needed of a candidate). left_out: questions that a champion was not asked, because
    its adapter had learnt them; the candidate's answers to them are not compared with it.
    """

    questions_digest: str
    questions_count: int
    answers: tuple[Answer, ...]
    yardstick: str | None = None
    index_recall: float | None = None
    served: str | None = None
    left_out: frozenset[str] = frozenset()

    def of(self, arm: str) -> list[Answer]:
        """In the order of the question ids, so that arms and reports pair up."""
        return sorted((answer for answer in self.answers if answer.arm == arm), key=lambda answer: answer.question)


def load_report(folder: Path, index_recall: float | None = None, served: str | None = None) -> Report:
    """From report.json and answers.jsonl as the stage `evaluate` writes them. Raises InputError naming file and record."""
    path = folder / "report.json"
    report, answers = read_json(path), read_jsonl(folder / "answers.jsonl")
    try:
        if report["format"] != FORMAT:
            raise InputError(f"{path} has format {report['format']!r}; this Tandem reads {FORMAT}. Run: dvc repro evaluate")
        digest, count = str(report["questions"]["digest"]), int(report["questions"]["count"])
        left_out = frozenset(map(str, report["questions"].get("left_out", ())))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} lacks format or questions ({error!r}). Run: dvc repro evaluate") from error
    read = tuple(read_answer(folder / "answers.jsonl", place, answer) for place, answer in enumerate(answers, start=1))
    return Report(digest, count, read, report.get("yardstick"), index_recall, served, left_out)


def read_answer(path: Path, place: int, record: Record) -> Answer:
    """Shape only: whether scores and tokens are numbers is for the gate to say, for every answer at once."""
    try:
        question, document, arm, scores = (record[key] for key in ("question", "document", "arm", "scores"))
        tokens = record["prompt_tokens"], record["completion_tokens"]
        text, named = str(record.get("text", "")), tuple(map(str, record.get("slices", ())))
        given = str(record.get("answer", ""))
        return Answer(str(question), document, str(arm), dict(scores), *tokens, text=text, slices=named, given=given)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: answer {place}: {error!r} is missing or malformed. Run: dvc repro evaluate") from error


def faults(report: Report, arms: Sequence[str], scores: Sequence[str]) -> list[str]:
    """Why these answers are no evidence about `arms`, one sentence each; none if they are. `scores`: those needed."""
    pages: dict[str, set[str | None]] = {}
    for answer in report.answers:
        pages.setdefault(answer.question, set()).add(answer.document)
    found = [fault for arm in arms for fault in arm_faults(arm, report.of(arm), pages, scores)]
    if len(pages) != report.questions_count or not pages:
        found.append(f"report.json counts {report.questions_count} questions, answers.jsonl holds {len(pages)}.")
    found += listed("the arms disagree about the source page of {}", [name for name, those in pages.items() if len(those) > 1])
    said = {answer.given for answer in report.answers}
    if len(pages) > 1 and len(said) == 1 and said != {""}:
        found.append(f"every answer is the same ({said.pop()[:60]!r}): something is broken that no score can judge.")
    found += listed("unknown arm: {}", {answer.arm for answer in report.answers} - set(ARMS))
    return found


def arm_faults(arm: str, answers: Sequence[Answer], questions: Mapping[str, Any], scores: Sequence[str]) -> list[str]:
    if not answers:
        return [f"arm {arm} is missing."]
    times = Counter(answer.question for answer in answers)
    found = listed(f"arm {arm} answers {{}} twice", [question for question, count in times.items() if count > 1])
    found += listed(f"arm {arm} does not answer {{}}", set(questions) - set(times))
    for name in scores:
        wrong = {answer.question for answer in answers if not number(answer.scores.get(name), high=1.0)}
        found += listed(f"arm {arm} has no {name} score in [0, 1] for {{}}", wrong)
    wrong = {a.question for a in answers if not (number(a.prompt_tokens, low=1) and number(a.completion_tokens))}
    return found + listed(f"arm {arm} has no token counts for {{}}", wrong)


def number(value: Any, low: float = 0.0, high: float = float("inf")) -> bool:
    return isinstance(value, int | float) and isfinite(value) and low <= value <= high


def listed(sentence: str, names: Sequence[str] | set[str], most: int = 3) -> list[str]:
    """One sentence that names the first few, or none."""
    if not names:
        return []
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return [sentence.format(", ".join(sorted(names)[:most]) + rest) + "."]
