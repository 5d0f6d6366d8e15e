"""The part of the report that says what a language model thought of the answers, and how far people agree with it."""

from tasks.page_rows import interval
from tasks.params import ARMS
from tasks.records import Record


def judge_part(judge: Record | None) -> Record | None:
    if not judge:
        return None
    title = "A language model's opinion"
    if "error" in judge:
        return {"title": title, "says": f"{judge['model']} could not be asked: {judge['error']}", "rows": [], "chart": None}
    found = {arm: interval(judge["arms"][arm]) for arm in ARMS if arm in judge["arms"]}
    says = (
        f"{judge['model']} judged the answers to {judge['questions']} test questions (MLflow's Correctness). It weighs nothing."
    )
    people = judge.get("people")
    labels = (
        f"With people ({people['n']} labels): {told(people)}." if people else "No labels by people are known (params/judge.yaml)."
    )
    return {
        "title": title,
        "says": f"{says} {labels} With the fact score: {told(judge['facts'])}.",
        "rows": [(arm, f"{cell['mean']} ({cell['interval']})") for arm, cell in found.items()],
        "chart": None,
    }


def told(agreement: Record) -> str:
    alike = f"alike for {agreement['agree']:.0%}"
    if agreement["kappa"] is None:
        return f"{alike}; Cohen's kappa is not defined, as one of both says the same of everything"
    return f"{alike}, Cohen's kappa {agreement['kappa']:.2f} ({agreement['low']:.2f} to {agreement['high']:.2f})"
