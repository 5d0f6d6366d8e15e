"""Evaluations outside the pipeline: the champion on today's questions, and an adapter that was made elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING

from flows import erasures, ledger
from flows.candidate import Candidate
from flows.ledger import Entry
from flows.opening import manifest_text, open_manifest
from flows.promotion import champion_evidence, scratch, sealed_json
from flows.settings import Settings
from tasks.answers import AnswerStore
from tasks.artifacts import check_model_folder
from tasks.errors import InputError
from tasks.evaluate import Subject, draw, measure_arms, score_answers, summarise, unseen_by, write_results, yardstick
from tasks.failpoints import failpoint
from tasks.generation import decoding
from tasks.lineage import learnt, lineage_of
from tasks.params import ARMS, Arm, uses_adapter
from tasks.params_files import load
from tasks.params_verdict import EvaluateParams, GateParams
from tasks.prompts import pinned, unpinned
from tasks.records import Record, read_json, read_jsonl

if TYPE_CHECKING:
    from tasks.search import Index


def has_same_yardstick(settings: Settings, entries: list[Entry], champion: Entry, candidate: Candidate) -> bool:
    """Whether the champion was measured on the very questions, by the very rules, by which the candidate was."""
    sealed = sealed_json(settings, champion_evidence(entries, champion)["report"])
    return bool(sealed["yardstick"] == read_json(candidate.evaluation / "report.json")["yardstick"])


def remeasure_champion(settings: Settings, champion: Entry, candidate: Candidate) -> Path:
    """The live release, with its own index, adapter and prompt, on the candidate's test questions. Measured once per pair."""
    mark = read_json(candidate.evaluation / "report.json")["yardstick"]
    folder = settings.home / "scratch" / f"champion-{str(champion.release)[:12]}-{mark[:12]}"
    if not (folder / "report.json").exists():
        assistant = open_manifest(settings, manifest_text(settings, str(champion.release)))
        release, pieces = assistant.release, assistant.pieces
        subject = Subject(
            assistant.index,
            release.retrieval,
            pieces.base,
            pieces.adapter,
            assistant.prompt,
            assistant.shots,
            release.decoding,
            AnswerStore(settings.answers),
        )
        measure_into(settings, subject, (assistant.arm,), candidate, folder, [])
    return folder


def challenge(settings: Settings, candidate: Candidate, adapter: Path) -> Candidate:
    """The workspace's candidate with another adapter. The arms without an adapter are as they were: their answers are kept."""
    check_adapter(adapter, questions_of(candidate))
    searcher = open_candidate(settings, candidate)
    prompt, shots = unpinned(candidate.prompt)
    subject = Subject(
        searcher,
        candidate.retrieval,
        candidate.base,
        adapter,
        prompt,
        shots,
        decoding(prompt),
        AnswerStore(settings.answers),
    )
    kept = [record for record in read_jsonl(candidate.evaluation / "answers.jsonl") if not uses_adapter(record["arm"])]
    folder = scratch(settings, "challenge")
    measure_into(settings, subject, tuple(filter(uses_adapter, ARMS)), candidate, folder, kept)
    return candidate.with_adapter(adapter, folder)


def open_candidate(settings: Settings, candidate: Candidate) -> "Index":
    from tasks.embedding import Embedder
    from tasks.reranking import Reranker
    from tasks.search import Index

    folder, pinned = candidate.query_encoder or (candidate.embedder, None)
    ordering, expected = candidate.reranker or (None, None)
    manifest = {**candidate.index, "query_encoder": pinned, "reranker": expected}
    index = Index(settings.index_uri, manifest, Embedder(folder), Reranker(ordering, settings.vectors) if ordering else None)
    tombstones = erasures.standing(settings, ledger.read(settings.ledger))
    if tombstones.erased:
        index.hide(tombstones.covers)
    return index


def check_adapter(adapter: Path, asked: list[Record]) -> None:
    """Before a byte of it is loaded. Raises InputError where it could run code, or says that it learnt the test questions."""
    check_model_folder(adapter)
    known = [record["id"] for record in learnt(lineage_of(adapter), asked)]
    if known:
        shown = ", ".join(known[:3])
        raise InputError(
            f"{adapter} was trained on {len(known)} of the test questions or on their pages ({shown}, ...): they cannot judge it"
        )


def measure_into(
    settings: Settings, subject: Subject, arms: tuple[Arm, ...], candidate: Candidate, folder: Path, kept: list[Record]
) -> None:
    """Whoever answers, the questions and the rules that judge are the candidate's, less what the subject's adapter has learnt."""
    params, gate = load(EvaluateParams, settings.root / "params"), load(GateParams, settings.root / "params")
    rules, _ = unpinned(candidate.prompt)
    asked = questions_of(candidate)
    fair = unseen_by((subject.adapter, subject.searcher.embedder.folder), asked)
    found, golden = measure_arms(subject, arms, fair, params)
    answers = [*kept, *score_answers(found, rules, params, gate, subject.searcher.embedder.passages, settings.root)]
    if kept:
        golden = read_json(candidate.evaluation / "golden.json") | golden
    report = summarise(answers, yardstick(asked, params, rules, gate), params, gate)
    report["questions"]["left_out"] = sorted({record["id"] for record in asked} - {record["id"] for record in fair})
    failpoint("measuring.before-folder")
    folder.mkdir(parents=True, exist_ok=True)
    draw(report, folder, gate)
    failpoint("measuring.before-results")
    write_results(folder, answers, report, golden, pinned(subject.prompt, subject.shots))


def questions_of(candidate: Candidate) -> list[Record]:
    """The test questions that the candidate was asked (the evaluation leaves out those that its adapter had learnt)."""
    asked = {record["question"] for record in read_jsonl(candidate.evaluation / "answers.jsonl")}
    return [record for record in read_jsonl(candidate.questions / "test.jsonl") if record["id"] in asked]
