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


def diff(result: Any) -> str:
    lines = [f"release {result['from']['number']} -> {result['to']['number']}", *(f"  {line}" for line in result["content"])]
    for kind, pages in result["documents"].items():
        names = [f"{old} -> {new}" for old, new in pages.items()] if isinstance(pages, dict) else pages
        lines += [f"  {kind}: {', '.join(names)}"] if names else []
    lines += [f"  params {key}: {before} -> {after}" for key, (before, after) in result["params"].items()]
    for arm, metrics in result["metrics"].items():
        lines.append(
            f"  {arm}: "
            + ", ".join(
                f"{name} {a:.3f} -> {b:.3f}"
                for name, (a, b) in metrics.items()
                if name in ("primary", "fact", "citation", "style")
            )
        )
    return "\n".join(lines)


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
