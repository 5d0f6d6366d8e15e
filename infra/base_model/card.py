"""Write the model card: its text stands in card.md.in, its figures come from the files that hold them."""

import argparse
import hashlib
import json
from pathlib import Path

from safetensors import safe_open

HERE = Path(__file__).parent


def table(result: dict[str, dict[str, float]]) -> str:
    """Figures by kind as a Markdown table."""
    lines = ["| kind | share | 95 % interval | questions |", "|---|---|---|---|"]
    for kind, figure in result.items():
        share, low, high = (f"{100 * figure[key]:.0f} %" for key in ("share", "low", "high"))
        lines.append(f"| {kind} | {share} | {low} to {high} | {figure['of']} |")
    return "\n".join(lines)


def sizes(weights: Path) -> dict[str, int]:
    """The number of weights of each tensor."""
    with safe_open(weights, "pt") as file:
        return {name: file.get_tensor(name).numel() for name in file.keys()}  # noqa: SIM118


def card(folder: Path, results: dict, log: Path) -> str:
    """The card of the model in `folder`."""
    weights = folder / "model.safetensors"
    counts = sizes(weights)
    frozen = counts["model.embed_tokens.weight"]
    last = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
    facts = {
        "TOTAL": f"{sum(counts.values()) / 1e6:.1f}M",
        "TRAINED": f"{(sum(counts.values()) - frozen) / 1e6:.1f}M",
        "FROZEN": f"{frozen / 1e6:.1f}M",
        "TOKENS": f"{last['tokens'] / 1e6:.1f}M",
        "STEPS": f"{last['step']:,}",
        "SHA": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "MB": f"{weights.stat().st_size / 1e6:.0f}",
        "VMB": f"{2 * frozen / 1e6:.0f}",
        "RESULTS": table(results["hand_written"]),
        "RESULTS_2": table(results["hand_written_2"]),
        "BANK": table(results["own_bank"]),
    }
    text = (HERE / "card.md.in").read_text(encoding="utf-8")
    for name, value in facts.items():
        text = text.replace(f"@{name}@", value)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    results = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    (arguments.folder / "README.md").write_text(card(arguments.folder, results, HERE / "log.jsonl"), encoding="utf-8")


if __name__ == "__main__":
    main()
