"""Score a model folder by kind on the hand-written test sets, or on held-out names and phrasings of the own bank.

Greedy answers, exact match after SQuAD's normalisation (lower case; no punctuation, no articles; single spaces), Wilson
95 % intervals. Only totals are reported: nobody who writes phrasings needs to see a sentence of the test set.
"""

import argparse
import json
import math
import random
import re
import string
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import prose
import scenes
import values
from bank import Bank
from examples import CITE, UNANSWERED, UNKNOWN
from mixture import prose_kind

HERE = Path(__file__).parent
TEST_SETS = {"hand_written": "heldout", "hand_written_2": "heldout_2"}


@dataclass(frozen=True)
class Asked:
    """A prompt's parts, the kind it counts under, and the answer wanted."""

    kind: str
    question: str
    passages: list[tuple[str, str]]
    wanted: str
    system: str = ""


def normalised(text: str) -> str:
    """SQuAD's normalisation (Rajpurkar et al., 2016)."""
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a share."""
    if not total:
        return 0.0, 1.0
    share = right / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (centre - spread) / (1 + z * z / total), (centre + spread) / (1 + z * z / total)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def hand_written(folder: Path, seed: int) -> list[Asked]:
    """Every question of the test set in each setting; the company of a passage and their order are drawn by seed."""
    rng = random.Random(seed)
    documents = {document["id"]: document for document in lines(folder / "documents.jsonl")}
    whole = {key: (document["title"], " ".join(document["sentences"])) for key, document in documents.items()}
    asked = []
    for row in lines(folder / "questions.jsonl"):
        key, question = row["document"], row["question"]
        company = [whole[other] for other in rng.sample([other for other in whole if other != key], 2)]
        three = rng.sample([whole[key], *company], 3)
        if row["answer"] is None:
            asked += [
                Asked("unanswerable, one document", question, [whole[key]], UNANSWERED),
                Asked("unanswerable, three passages", question, three, UNANSWERED),
            ]
            continue
        sentence = documents[key]["sentences"][row["sentence"]]
        asked += [
            Asked("one fact", question, [(whole[key][0], sentence)], row["answer"]),
            Asked("three facts", question, [whole[key]], row["answer"]),
            Asked("three passages", question, three, row["answer"]),
            Asked("closed book", question, [], row["answer"]),
        ]
    return asked


def own_bank(seed: int, number: int) -> list[Asked]:
    """Fresh examples with names and phrasings that training never drew."""
    rng, bank = random.Random(seed), Bank(validation=True)
    shapes = {
        "one fact": (1, 1, False),
        "three facts": (1, 3, False),
        "three passages": (3, 3, False),
        "unanswerable, one document": (1, 3, True),
        "unanswerable, three passages": (3, 3, True),
    }
    found = [(kind, prose.prose_example(rng, bank, *shape, 0)) for kind, shape in shapes.items() for _ in range(number)]
    found += [("closed book", prose.closed_book(rng, bank)) for _ in range(number // 2)]
    unseen = [scene for scene in scenes.load_scenes() if values.held_out(scene.title, 0.1)]
    found += [("unseen scenes", scenes.scene_example(rng, unseen, 0)) for _ in range(2 * number)]
    cited = [prose_kind(rng, bank, "pages") for _ in range(number // 2)]
    asked = [Asked(kind, item.question, item.passages, item.answer) for kind, item in found]
    return asked + [Asked("cited", item.question, item.passages, f"{item.answer} [{item.gold + 1}]", CITE) for item in cited]


def rendered(tokenizer, item: Asked) -> str:
    messages = [{"role": "system", "content": item.system}] if item.system else []
    documents = [{"title": title, "text": text} for title, text in item.passages] or None
    messages.append({"role": "user", "content": item.question if documents else f"Question: {item.question}"})
    return tokenizer.apply_chat_template(messages, documents=documents, add_generation_prompt=True, tokenize=False)


@torch.inference_mode()
def answers(model, tokenizer, asked: list[Asked], batch: int) -> list[str]:
    """Greedy answers, in left-padded batches of prompts of like length."""
    texts = [rendered(tokenizer, item) for item in asked]
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    found = [""] * len(texts)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        inputs = tokenizer([texts[row] for row in rows], return_tensors="pt", padding=True, add_special_tokens=False)
        out = model.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=24, do_sample=False
        )
        for row, ids in zip(rows, out[:, inputs["input_ids"].shape[1] :], strict=True):
            found[row] = tokenizer.decode(ids, skip_special_tokens=True).strip()
    return found


def share(flags: list[bool]) -> dict[str, float]:
    low, high = wilson(sum(flags), len(flags))
    return {
        "share": round(sum(flags) / max(1, len(flags)), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "right": sum(flags),
        "of": len(flags),
    }


def scores(asked: list[Asked], given: list[str]) -> dict[str, dict[str, float]]:
    """Exact match by kind; beside it how often an answerable question is refused and a closed book admitted."""
    flags: dict[str, list[bool]] = defaultdict(list)
    for item, answer in zip(asked, given, strict=True):
        if item.kind == "cited":
            flags[item.kind].append(answer == item.wanted)
        else:
            flags[item.kind].append(normalised(answer) == normalised(item.wanted))
        if item.wanted != UNANSWERED and item.passages:
            flags[f"wrongly refused, {item.kind}"].append(answer == UNANSWERED)
        if not item.passages:
            flags["closed book, says it does not know"].append(answer == UNKNOWN)
    return {kind: share(values) for kind, values in flags.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bank", type=int, default=0, metavar="N", help="only N examples a kind from the own bank")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(arguments.folder)
    model = AutoModelForCausalLM.from_pretrained(arguments.folder, dtype=torch.float32).eval()
    sets = {"own_bank": own_bank(arguments.seed, arguments.bank or 100)}
    if not arguments.bank:
        sets |= {name: hand_written(HERE / folder, arguments.seed) for name, folder in TEST_SETS.items()}
    results = {name: scores(asked, answers(model, tokenizer, asked, arguments.batch)) for name, asked in sets.items()}
    print(json.dumps(results, indent=2))
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
