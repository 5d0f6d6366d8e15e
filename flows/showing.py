"""The result of every command of flows/cli.py as a person sees it."""

from typing import Any


def ingest(result: Any) -> str:
    questions = ", ".join(f"{value} {name}" for name, value in result["questions"].items() if isinstance(value, int))
    documents = f"{result['accepted']} documents accepted, {result['rejected']} rejected (why: data/documents/rejected.jsonl)"
    reasons = ", ".join(f"{count} {kind}" for kind, count in result["questions"]["reasons"].items())
    why = f"\nquestions rejected: {reasons} (why: data/questions/rejected.jsonl)" if reasons else ""
    erased = "".join(f"\n{line}" for line in result.get("erased", []))
    return f"{documents}{erased}\nquestions: {questions}{why}\nnext: tandem plan"


def plan(result: Any) -> str:
    if "measured" in result:
        from flows.tuning import show

        return show(result)
    lines = [f"{stage}: {'; '.join(why)}" for stage, why in result["stale"].items()]
    lines += [f"{stage}: perhaps, where what stands above it changes" for stage in result["after"]]
    lines += [result["embedding"]["says"]] if result["embedding"] else []
    if result["adapter_lag"]:
        lines.append(f"the adapter lags behind the corpus by {result['adapter_lag']} pages (tandem retrain)")
    return "\n".join([*(lines or ["everything is up to date"]), f"next: {result['next']}"])


def outcome(result: Any) -> str:
    number = f"release {result['number']}" if result.get("number") else "nothing"
    reasons = "".join(f"\n  {reason}" for reason in result.get("reasons", []))
    if result["outcome"] in ("refused", "undecided"):
        return f"{result['outcome']}; {number} stays live{reasons}"
    return f"{result['outcome']}: {number} is live ({str(result['release'])[:12]}){reasons}"


def sweep(result: Any) -> str:
    lines = [f"validation loss  {'parameters':>12}  seconds  values"]
    for trial in result["trials"]:
        values = ", ".join(f"{key}: {value}" for key, value in trial["values"].items()) or "params/adapter.yaml as it is"
        lines.append(f"{trial['loss']:>15.4f}  {trial['parameters']:>12,}  {trial['seconds']:>7.0f}  {values}")
    return "\n".join([*lines, result["reason"]])


def study(result: Any) -> str:
    arms = list(result["points"][0]["arms"])
    rows = [
        {"title": f"{point['base']}, {point['pairs']:,} examples", "known": "",
         "shown": ["{mean:.2f} ({low:.2f}-{high:.2f})".format(**point["arms"][arm]) for arm in arms]}
        for point in result["points"]
    ]  # fmt: skip
    advice = [f"{each['about']}: {each['says']}" for each in result["advice"]]
    return "\n".join([f"primary score on {result['questions']} validation questions", table(arms, rows), *advice])


def answer(result: Any) -> str:
    if "why" in result:
        return why(result["why"])
    cited = [source for source in result["sources"] if source["cited"]] or result["sources"]
    lines = [f"  {source['page']} ({source['heading']}), score {source['score']:.2f}" for source in cited]
    return "\n".join([result["answer"], *lines, f"  {made_by(result)}"])


def made_by(result: Any) -> str:
    kept = f", answer {result['id']}" if result["id"] else ""
    return f"release {result['number']} ({result['release'][:12]}), arm {result['arm']}{kept}"


def why(result: Any) -> str:
    from tasks.page import visible

    found = [line for passage in result["passages"] for line in passage_lines(passage)]
    settings = {"retrieval": result["retrieval"], "decoding": result["decoding"]}
    lines = [f"{name}: {', '.join(f'{key} {value}' for key, value in sorted(values.items()))}"
             for name, values in settings.items() if values]  # fmt: skip
    prompt = [f"    {line}" for line in result["prompt"].splitlines()]
    head = [result["question"], f"  {result['answer']}", f"  {made_by(result)}, {result['at']}"]
    passages = ["passages, as the prompt numbers them:", *found] if found else []
    return str(visible("\n".join([*head, *passages, *lines, "prompt:", *prompt])))


def passage_lines(passage: Any) -> list[str]:
    legs = ", ".join(f"{leg} {placed(passage[leg])}" for leg in ("text", "vector"))
    cited = ", cited" if passage["cited"] else ""
    return [
        f"  [{passage['number']}] {passage['page']} ({passage['heading']}), score {passage['score']:.3f}: {legs}{cited}",
        f"      {' '.join(passage['passage'].split())}",
    ]


def placed(leg: Any) -> str:
    return f"{leg['score']:.3f} (place {leg['place']})" if leg else "not found"


def served(result: Any) -> str:
    return f"{result['outcome']}; nobody is answered at {result['address']} any more"


def status(result: Any) -> str:
    live = result["live"]
    if live is None:
        return "nothing is live; make a release: tandem release"
    return (
        f"release {live['number']} ({live['release'][:12]}) is live since {live['since']}: arm {live['arm']}, "
        f"{live['documents']} documents, {live['passages']} passages\n{live['action']} by {live['by']}: {live['why']}"
    )


def history(result: Any) -> str:
    if not result:
        return "no entries yet; make a release: tandem release"
    return "\n".join(history_line(entry) for entry in result)


def history_line(entry: Any) -> str:
    live = f"live: {entry['number'] or '-'}"
    return f"{entry['sequence']:>4}  {entry['at']}  {entry['action']:<9} {live}  {entry['who']}: {entry['why'][:140]}"


NAMED = 10  # pages, and answers, that a difference lists; --json has all
TOLD = ("primary", "fact", "citation", "style", "abstained")


def diff(result: Any) -> str:
    from tasks.page import visible

    a, b = result["from"], result["to"]
    head = f"release {a['number']} ({a['release'][:12]}) -> release {b['number']} ({b['release'][:12]})"
    lines = [*result["content"], *page_lines(result["documents"]), *passage_counts(result["passages"])]
    lines += adapter_lines(result["adapter"])
    lines += [f"params {key}: {before} -> {after}" for key, (before, after) in result["params"].items()]
    lines += metric_lines(result) + answer_lines(result["answers"])
    return str(visible("\n".join([head, *(f"  {line}" for line in lines)])))


def page_lines(documents: Any) -> list[str]:
    lines = []
    for kind, pages in documents.items():
        names = [f"{old} -> {new}" for old, new in pages.items()] if isinstance(pages, dict) else pages
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        lines += [f"{len(names)} {kind}: {', '.join(names[:NAMED])}{more}"] if names else []
    return lines


def passage_counts(passages: Any) -> list[str]:
    if passages["added"] is None:
        return ["passages: which ones changed cannot be told, the rows of a release are gone (tandem history says why)"]
    changed = passages["added"] or passages["removed"]
    return [f"passages: {passages['added']} added, {passages['removed']} removed"] if changed else []


def adapter_lines(adapter: Any) -> list[str]:
    told = [adapter_line(adapter[side]) for side in ("from", "to")]
    return [f"adapter: the same, {told[0]}"] if told[0] == told[1] else [f"adapter: {told[0]} -> {told[1]}"]


def adapter_line(adapter: Any) -> str:
    if adapter is None:
        return "none"
    taught = f"taught {adapter['questions']} questions about {adapter['documents']} pages"
    return f"of release {adapter['came_with']}, {taught if adapter['questions'] else 'which does not say what it was taught'}"


def metric_lines(result: Any) -> list[str]:
    asked = result["questions"]
    lines = [] if asked["same"] else [f"measured on other questions ({asked['from']} -> {asked['to']}): figures do not compare"]
    for arm, metrics in result["metrics"].items():
        served = " and ".join(str(result[side]["number"]) for side in ("from", "to") if result[side]["arm"] == arm)
        lines.append(f"{arm} (served by {served}):" if served else f"{arm}:")
        lines += [f"  {name} {moved(metrics[name])}" for name in TOLD if name in metrics]
    return lines


def moved(metric: Any) -> str:
    return f"{spread(metric['from'])} -> {spread(metric['to'])}"


def spread(metric: Any) -> str:
    return f"{metric['mean']:.3f} ({metric['low']:.3f} to {metric['high']:.3f})"


def answer_lines(answers: Any) -> list[str]:
    changed, both = answers["changed"], answers["asked_of_both"]
    count = f"answers: {len(changed)} of {both} differ, {answers['better']} score more, {answers['worse']} less"
    lines = [line for each in changed[:NAMED] for line in (f"  {each['question']}", *both_answers(each))]
    more = [f"  and {len(changed) - NAMED} more: --json"] if len(changed) > NAMED else []
    return [count, *lines, *more]


def both_answers(changed: Any) -> list[str]:
    said = zip(changed["score"], (changed["from"], changed["to"]), strict=True)
    return [f"    {score:.2f}  {one_line(answer)}" for score, answer in said]


def one_line(text: str) -> str:
    return " ".join(text.split())


def report(result: Any) -> str:
    reasons = "".join(f"\n  {reason}" for reason in result["reasons"])
    return f"{result['file']}\n{result['name']}, {result['verdict']}:{reasons}\n{table(result['arms'], result['figures'])}"


def table(arms: list[str], figures: list[Any]) -> str:
    """A line per figure, a column per arm; what is not simply counted says how it is known."""
    from tasks.page import visible

    rows = [["", *arms, ""], *([str(visible(row["title"])), *row["shown"], row["known"]] for row in figures)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(arms) + 1)]
    lines = ["  ".join([row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:-1], widths[1:], strict=True)),
                        row[-1]]) for row in rows]  # fmt: skip
    return "\n".join(line.rstrip() for line in lines)


def says(result: Any) -> str:
    return str(result["says"])


def doctor(result: Any) -> str:
    lines = [f"mended: {done}" for done in result["mended"]]
    lines += [f"{finding['where']}: {finding['what']}\n    mend: {finding['mend']}" for finding in result["findings"]]
    lines += [f"{note['where']}: {note['what']} (minor)\n    mend: {note['mend']}" for note in result["notes"]]
    return "\n".join(lines or ["nothing is wrong"])
