"""How a judgement is shown: artifacts in the Prefect UI, tables, plots and tags in MLflow, and the question to a person."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows import promotion, tracking
from flows.addresses import mlflow_run, prefect_address
from flows.candidate import Candidate
from flows.promotion import Judgement
from flows.registration import CARD
from flows.reporting import of_verdict
from flows.run_names import name_flow_run
from flows.session import Session, say
from flows.settings import Settings, shown
from tasks.errors import RefusedError
from tasks.gate import Verdict
from tasks.manifest import short
from tasks.page import page
from tasks.records import read_json, read_jsonl

SPENT = ("cost", "latency_p50", "latency_p95", "peak_memory_mb", "thousand")  # of an arm, as the report has them
APPROVAL_SECONDS = 24 * 3600  # a person has a day; after it the candidate is refused, and the next run asks again


def arms_table(verdict: Verdict) -> list[dict[str, str]]:
    """One row per arm, best first, as text for a table."""
    rows = sorted(verdict.arms, key=lambda row: -row.mean)
    return [
        {
            "arm": row.arm + (" (to be served)" if row.arm == verdict.arm else ""),
            "primary": f"{row.mean:.3f}",
            "95 % interval": f"{row.low:.3f} to {row.high:.3f}",
            "facts": "-" if row.fact is None else f"{row.fact:.3f}",
            "abstains": "-" if row.abstention is None else f"{row.abstention:.3f}",
            "cost (tokens)": f"{row.cost:.0f}",
            "above floors": "yes" if row.above_floors else "no",
        }
        for row in rows
    ]


def verdict_markdown(judgement: Judgement) -> str:
    verdict = judgement.verdict
    head = f"# {verdict.decision.capitalize()}: release {short(judgement.release_id)}, arm {judgement.release.arm}"
    reasons = "\n".join(f"- {reason}" for reason in verdict.reasons)
    notes = "\n".join(f"- {note}" for note in verdict.notes)
    compared = "\n".join(f"- {each.says}" for each in verdict.comparisons if each.arm == verdict.arm)
    comparisons = f"\n## Comparisons\n\n{compared}\n" if compared else ""
    return f"{head}\n\n{reasons}\n\n## Notes\n\n{notes}\n{comparisons}"


def show_judgement(session: Session, candidate: Candidate, judgement: Judgement) -> None:
    show_in_prefect(session, judgement)
    show_in_mlflow(session, candidate, judgement)


def show_in_prefect(session: Session, judgement: Judgement) -> None:
    from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

    create_table_artifact(arms_table(judgement.verdict), key="arms", description="The four arms on the test questions")
    create_markdown_artifact(verdict_markdown(judgement), key="verdict", description="What the gate decided, and why")
    text = "Plots, metrics and every answer, in MLflow"
    address = mlflow_run(session.settings, tracking.experiment_id(session.settings), session.run_id)
    create_link_artifact(address, link_text=text, key="mlflow-run", description=text)


def conclude(session: Session, outcome: str, tags: Mapping[str, str]) -> None:
    """The outcome into the names and tags of both runs, so that a list of them tells the story; each links to the other."""
    tag_run(session, tags)
    named = name_flow_run(session.settings.project, outcome, tags)
    if named is None:  # the plain functions without a flow
        return
    tracking.client(session.settings.tracking_uri).update_run(session.run_id, name=named.name)
    tag_run(session, {"prefect": f"{shown(prefect_address())}/runs/flow-run/{named.id}"})


def show_in_mlflow(session: Session, candidate: Candidate, judgement: Judgement) -> None:
    """Everything about a decision on the flow's own run, refused or not."""
    settings, run_id = session.settings, session.run_id
    client = tracking.client(settings.tracking_uri)
    report = read_json(candidate.evaluation / "report.json")
    for arm, values in report["arms"].items():
        means = {f"{arm}.{name}": metric["mean"] for name, metric in values["metrics"].items()}
        spent = {f"{arm}.{name}": value for name, value in tracking.numbers({key: values.get(key) for key in SPENT}).items()}
        tracking.log_metrics(settings, run_id, means | spent)
    tracking.log_metrics(settings, run_id, report["retrieval"])
    if "judge" in candidate.curves:
        tracking.log_metrics(settings, run_id, opinions(read_json(candidate.curves["judge"])))
    tracking.log_answers(settings, run_id, read_jsonl(candidate.evaluation / "answers.jsonl"), judgement.release.arm)
    pieces = promotion.pieces(settings, candidate, judgement)
    client.log_text(
        run_id, page(of_verdict(settings, judgement.entries, judgement.release, pieces, promotion.now())), "report.html"
    )
    client.log_text(run_id, pieces["card"].decode(), CARD)
    client.log_text(run_id, verdict_markdown(judgement), "verdict.md")
    client.log_text(run_id, judgement.verdict.to_json(), "verdict.json")
    for path in files_to_show(candidate):
        client.log_artifact(run_id, str(path), "plots" if path.suffix == ".png" else None)
    verdict = judgement.verdict.decision
    tag_run(session, {"verdict": verdict, "arm": judgement.release.arm, "release.id": judgement.release_id, "outcome": "judged"})
    client.set_tag(run_id, "mlflow.note.content", verdict_markdown(judgement))


def opinions(judge: Mapping[str, Any]) -> dict[str, float]:
    return {f"{arm}.judge": values["mean"] for arm, values in judge.get("arms", {}).items()}


def files_to_show(candidate: Candidate) -> list[Path]:
    return [candidate.evaluation / "report.json", candidate.lock, *sorted(candidate.plots.rglob("*.png"))]


def tag_run(session: Session, tags: Mapping[str, str]) -> None:
    for key, value in tags.items():
        tracking.client(session.settings.tracking_uri).set_tag(session.run_id, key, value)


def ask_approval(settings: Settings, judgement: Judgement) -> None:
    """TANDEM_APPROVAL=1: the flow run pauses in the Prefect UI until a person says yes. Raises RefusedError if none does."""
    if not settings.approval:
        return
    from prefect.exceptions import FlowPauseTimeout
    from prefect.flow_runs import pause_flow_run
    from prefect.input import RunInput

    class Approve(RunInput):
        approve: bool = False
        reason: str = ""

    question = Approve.with_initial_data(description=verdict_markdown(judgement), approve=False)
    try:
        answer: Any = pause_flow_run(wait_for_input=question, timeout=APPROVAL_SECONDS, poll_interval=5)
    except FlowPauseTimeout as error:
        raise RefusedError("nobody approved the candidate within a day; the next run asks again") from error
    if not answer.approve:
        raise RefusedError(f"a person did not approve it: {answer.reason or 'no reason given'}")
    say(f"a person approved it: {answer.reason or 'no reason given'}")
