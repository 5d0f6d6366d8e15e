"""A verdict in two sentences without a term of the trade."""

from collections.abc import Mapping

from tasks.judged import WORDS, Judged
from tasks.records import Record


def headline(judged: Judged, right: Mapping[str, int]) -> list[str]:
    """The verdict in two sentences without a term of the trade."""
    stays = f"{judged.champion} stays live" if judged.champion else "nothing is live yet"
    if undecided(judged):
        return [f"{judged.name} was not promoted, as these questions cannot tell whether it may be; {stays}.", open_end(judged)]
    if judged.outcome == "refused":
        return [f"{judged.name} was refused; {stays}.", refusal(judged)]
    done = "was promoted" if judged.outcome == "promoted" else "is accepted by the gate"
    first = (
        f"{judged.name} {done}: questions are answered by {WORDS.get(judged.arm, judged.arm)} ({judged.arm}), which "
        f"gets {right[judged.arm]} of {judged.report['questions']['count']} test questions right."
    )
    return [first, against(judged) or among(judged)]


def undecided(judged: Judged) -> bool:
    return judged.outcome == "refused" and judged.verdict.get("decision") == "cannot decide"


def open_end(judged: Judged) -> str:
    """What would settle it, in the gate's words."""
    reasons = [str(reason) for reason in judged.verdict["reasons"]]
    found = next((text for text in reasons if text.startswith("Cannot decide: ")), reasons[0]).removeprefix("Cannot decide: ")
    return f"{found[:1].upper()}{found[1:]}"


def refusal(judged: Judged) -> str:
    """Why, in one sentence: what a person said, or the gate's first reason, told whole where no arm is good enough."""
    verdict = judged.verdict
    if judged.why and verdict["accepted"]:
        return f"The gate had accepted it, but {judged.why[:1].lower()}{judged.why[1:]}{'' if judged.why.endswith('.') else '.'}"
    rows = verdict.get("arms") or []
    best = max(rows, key=lambda row: row["mean"], default=None)
    if best is None or any(row["above_floors"] for row in rows):
        return str(verdict["reasons"][0])
    said = f"{best['arm']} is not served: "
    short = next((text.removeprefix(said) for text in verdict["reasons"] if text.startswith(said)), "")
    return f"None of its {len(rows)} ways to answer is good enough; even the best, {best['arm']}, falls short: {short}"


def against(judged: Judged) -> str:
    """The comparison with the champion, where there is one."""
    found = next((each for each in judged.verdict.get("comparisons", []) if each["other"].startswith("champion")), None)
    if found is None or judged.champion is None:
        return ""
    low, high = (signed(found[side]) for side in ("low", "high"))
    rule, margin = judged.verdict["thresholds"].get("rule"), judged.verdict["thresholds"].get("margin")
    wanted = f"; as the pages had changed, it had to be no more than {margin:.2f} lower" if rule == "not worse" and margin else ""
    return f"Against {judged.champion} it scores {signed(found['difference'])} (between {low} and {high}){wanted}."


def signed(value: float | None) -> str:
    """0.02 higher; None stands for a bound that is unlimited."""
    if value is None:
        return "unlimited"
    return f"{abs(value):.2f} {'higher' if value >= 0.005 else 'lower' if value <= -0.005 else 'apart'}"


def among(judged: Judged) -> str:
    """How the arm stands among the others, in a first release."""
    rows = {row["arm"]: row for row in judged.verdict.get("arms") or []}
    if judged.arm not in rows or len(rows) < 2:
        return str(judged.verdict["reasons"][0])
    best = max((row for arm, row in rows.items() if arm != judged.arm), key=lambda row: row["mean"])
    return (
        f"It scores {rows[judged.arm]['mean']:.2f} of 1; of the {len(rows) - 1} other ways that were tried, {best['arm']} comes "
        f"next with {best['mean']:.2f}."
        if best["mean"] <= rows[judged.arm]["mean"]
        else f"It scores {rows[judged.arm]['mean']:.2f} of 1 at {rows[judged.arm]['cost']:.0f} token equivalents an answer; "
        f"{best['arm']} scores {best['mean']:.2f} at {best['cost']:.0f}."
    )


def scoring(verdict: Record) -> str:
    """`The score of an answer is 60 % fact, 20 % citation and 20 % style.`"""
    weights = {name: weight for name, weight in (verdict["thresholds"].get("primary") or {}).items() if weight}
    total = sum(weights.values())
    largest = sorted(weights.items(), key=lambda item: -item[1])
    shares = [f"{name.replace('_', ' ')} {weight / total:.0%}" for name, weight in largest]
    return f"The score of an answer, 0 to 1, weighs {', '.join(shares)}." if shares else ""
