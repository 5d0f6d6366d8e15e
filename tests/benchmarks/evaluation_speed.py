"""What an evaluation costs, and the next one: `OMP_NUM_THREADS=1 python tests/benchmarks/evaluation_speed.py CLONE [REPEATS]`.

CLONE: a clone after `make demo`. Its files are read only. Three parts, each printed as it is done:

1. The answers of the four arms from nothing, against the naive way: one `generate` pass per arm with transformers' own defaults,
   eight questions at a time in their order, the adapter not merged; and against `generate` tuned by hand: two sets of weights,
   the adapter merged, the shortest prompts first, as many at a time as Tandem, in inference mode, freed memory kept. Fresh
   processes take turns; processor time of loading and answering, without imports (but vLLM's own, where TANDEM_VLLM names an
   environment: it loads them in a process of its own), and seconds by the clock. Whether the answers are equal is counted.
2. After a retrain (the adapter scaled by 0.98), and 3. after the first number on one page in a hundred has changed: tokens that
   the evaluation reads and writes anew, per arm, those of the answers that are timed included.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tasks.answers import AnswerStore
from tasks.chunks import chunks
from tasks.decoding import Decoder, generate
from tasks.documents import documents
from tasks.evaluate import Subject, measure_arms
from tasks.generation import Generated, Generator, decoding, stop_tokens
from tasks.index import index
from tasks.params import ARMS, ChunksParams, DocumentsParams, IndexParams, uses_adapter, uses_passages
from tasks.params_files import load
from tasks.params_verdict import EvaluateParams
from tasks.prompts import fitting, unpinned
from tasks.records import Record, read_json, read_jsonl
from tasks.search import open_index
from tasks.stage import keep_freed_memory
from tasks.vllm_engine import INTERPRETER, VllmGenerator

FEW = 2_000  # tokens held at once
WAYS = {"naive": 8, "tuned": 0, "tandem": 0, f"tandem, {FEW:,} tokens": FEW}  # questions, of ours tokens; 0: params/evaluate.yaml
WAYS |= {"vllm": 0} if INTERPRETER in os.environ else {}
Tokens = dict[str, Counter[str]]


def main() -> None:
    clone, repeats = Path(sys.argv[1]).absolute(), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copyfile(clone / ".tandem/vectors.sqlite", Path(scratch) / "vectors.sqlite")
        from_nothing(clone, Path(scratch), repeats)
        again(clone, Path(scratch))


def machine() -> str:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    return f"{names[0]}, {os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}; {packages}"


# --- From nothing


def from_nothing(clone: Path, scratch: Path, repeats: int) -> None:
    (scratch / "prompts.json").write_text(json.dumps(prompts_of(clone)))
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    clock: dict[str, float] = {}
    answers: dict[str, Any] = {}
    for repeat in range(repeats):
        for way in WAYS:
            command = [sys.executable, "-W", "ignore", __file__, "--one", way, str(clone), str(scratch)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "TQDM_DISABLE": "1"})
            told = json.loads(done.stdout.splitlines()[-1])
            found[way].append(told["cpu"])
            clock[way] = told["clock"]
            answers[way] = told["answers"]
        line = ", ".join(f"{way} {found[way][-1]:.1f} (clock {clock[way]:.1f})" for way in WAYS)
        print(f"run {repeat + 1}, load {os.getloadavg()[0]:.1f}: processor seconds {line}", flush=True)
    total = sum(len(given) for given in answers["naive"].values())
    for way in list(WAYS)[1:]:
        ratios = np.array(found["naive"]) / np.array(found[way])
        same = sum(a == b for arm in ARMS for a, b in zip(answers["naive"][arm], answers[way][arm], strict=True))
        print(
            f"{way}: {np.median(ratios):.2f} times less processor time than naive ({ratios.min():.2f} to {ratios.max():.2f}); "
            f"{same} of {total} answers equal", flush=True
        )  # fmt: skip


def prompts_of(clone: Path) -> dict[str, list[str]]:
    """Of the test questions, as the stage `evaluate` asks them."""
    from transformers import AutoTokenizer

    data = clone / "data"
    tokenizer = AutoTokenizer.from_pretrained(data / "models/base", local_files_only=True)
    prompt, shots = unpinned(read_json(data / "evaluation/prompt.json"))
    asked, settings = read_jsonl(data / "questions/test.jsonl"), read_json(data / "retrieval/settings.json")
    searcher = open_index(str(clone / ".tandem/index"), data / "index", data / "models/embedder", data / "retriever")
    found = {record["id"]: searcher.search(record["question"], settings) for record in asked}
    return {
        arm: [tokenizer.apply_chat_template(
            fitting(tokenizer, record["question"], found[record["id"]] if uses_passages(arm) else [], prompt, shots[arm])[0],
            tokenize=False, add_generation_prompt=True,
        ) for record in asked]
        for arm in ARMS
    }  # fmt: skip


def one(way: str, clone: Path, scratch: Path) -> None:
    """In a process of its own."""
    prompts = json.loads((scratch / "prompts.json").read_text())
    settings = decoding(unpinned(read_json(clone / "data/evaluation/prompt.json"))[0])
    import peft  # noqa: F401  not counted
    import transformers  # noqa: F401

    batch = WAYS[way] or load(EvaluateParams, clone / "params").batch_tokens
    began, started = time.monotonic(), spent()
    answers = {"naive": naive, "tuned": tuned, "vllm": by_vllm}.get(way, ours)(clone / "data", prompts, settings, batch)
    print(json.dumps({"cpu": spent() - started, "clock": time.monotonic() - began, "answers": answers}))


def spent() -> float:
    """Processor seconds, those of ended children included."""
    return sum(os.times()[:4])


def naive(data: Path, prompts: dict[str, list[str]], settings: Mapping[str, Any], batch: int) -> dict[str, list[str]]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    answers: dict[str, list[str]] = {}
    for arm, asked in prompts.items():
        tokenizer = AutoTokenizer.from_pretrained(data / "models/base", local_files_only=True, padding_side="left")
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        model: Any = AutoModelForCausalLM.from_pretrained(data / "models/base", dtype=getattr(torch, settings["dtype"]))
        if uses_adapter(arm):
            model = PeftModel.from_pretrained(model, str(data / "adapter"))
        stops, answers[arm] = stop_tokens(model, tokenizer), []
        for start in range(0, len(asked), batch):
            inputs = tokenizer(asked[start : start + batch], return_tensors="pt", padding=True, add_special_tokens=False)
            inputs.pop("token_type_ids", None)
            made = model.generate(**inputs, max_new_tokens=settings["max_new_tokens"], do_sample=False, eos_token_id=stops,
                                  pad_token_id=tokenizer.pad_token_id)  # fmt: skip
            new = made[:, inputs["input_ids"].shape[1] :]
            answers[arm] += [tokenizer.decode(row, skip_special_tokens=True).strip() for row in new]
    return answers


def tuned(data: Path, prompts: dict[str, list[str]], settings: Mapping[str, Any], batch: int) -> dict[str, list[str]]:
    """What who knows transformers would write; Tandem's own way for models whose cache it does not know."""
    import tasks.generation

    tasks.generation.decoder_of = lambda model: generate
    return ours(data, prompts, settings, batch)


def by_vllm(data: Path, prompts: dict[str, list[str]], settings: Mapping[str, Any], batch: int) -> dict[str, list[str]]:
    return ours(data, prompts, settings, batch, VllmGenerator)


def ours(
    data: Path, prompts: dict[str, list[str]], settings: Mapping[str, Any], batch: int, make: type[Generator] = Generator
) -> dict[str, list[str]]:
    keep_freed_memory()
    answers: dict[str, list[str]] = {}
    for adapted in (False, True):
        generator = make(data / "models/base", data / "adapter" if adapted else None, settings)
        for arm in (arm for arm in ARMS if uses_adapter(arm) == adapted):
            made: dict[str, Generated] = {}
            for done in generator.batches(prompts[arm], batch, arm):
                made |= done
            answers[arm] = [made[prompt].text for prompt in prompts[arm]]
        generator.close()
    return answers


# --- The next time


def again(clone: Path, scratch: Path) -> None:
    data, store = clone / "data", str(clone / ".tandem/index")
    first = evaluated(clone, scratch, data / "index", store, data / "adapter")
    show("from nothing", first, first)
    show("the same again", evaluated(clone, scratch, data / "index", store, data / "adapter"), first)
    show(
        "after a retrain",
        evaluated(clone, scratch, data / "index", store, retrained(data / "adapter", scratch / "adapter")),
        first,
    )
    pages = changed_index(clone, scratch)
    show(f"after {pages} changed", evaluated(clone, scratch, scratch / "index", str(scratch / "store"), data / "adapter"), first)


def show(what: str, tokens: Tokens, first: Tokens) -> None:
    for arm in ARMS:
        now, before = tokens.get(arm, Counter()), first[arm]
        ratio = before["written"] / now["written"] if now["written"] else float("inf")
        timed = f"{now['timed']:,} of them for the clock"
        print(
            f"{what}: {arm:9} {now['read']:>8,} tokens read, {now['written']:>6,} written ({timed}); {ratio:.1f} times less",
            flush=True,
        )


def evaluated(clone: Path, scratch: Path, index_folder: Path, store: str, adapter: Path) -> Tokens:
    """The tokens that an evaluation by the answers known so far reads and writes, per arm."""
    data, params = clone / "data", load(EvaluateParams, clone / "params")
    prompt, shots = unpinned(read_json(data / "evaluation/prompt.json"))
    searcher = open_index(store, index_folder, data / "models/embedder", data / "retriever")
    settings = read_json(data / "retrieval/settings.json")
    known = AnswerStore(scratch / "answers.sqlite")
    subject = Subject(searcher, settings, data / "models/base", adapter, prompt, shots, decoding(prompt), known)
    tokens: Tokens = {}
    for arm in ARMS:
        with counted() as tokens[arm]:
            measure_arms(subject, (arm,), read_jsonl(data / "questions/test.jsonl"), params)
    return tokens


class counted:
    """Counts what a generator reads and writes; answers made alone are those that are timed."""

    def __enter__(self) -> Counter[str]:
        self.original, counts = Generator._generate, Counter[str]()

        def listen(
            generator: Generator, prompts: list[str], batch_tokens: int, decoder: Decoder
        ) -> Iterator[dict[str, Generated]]:
            for made in self.original(generator, prompts, batch_tokens, decoder):
                counts["read"] += sum(each.prompt_tokens for each in made.values())
                counts["written"] += sum(each.completion_tokens for each in made.values())
                counts["timed"] += sum(each.completion_tokens for each in made.values()) if len(prompts) == 1 else 0
                yield made

        Generator._generate = listen  # type: ignore[assignment,method-assign]
        return counts

    def __exit__(self, *error: object) -> None:
        Generator._generate = self.original  # type: ignore[assignment,method-assign]


def retrained(adapter: Path, out: Path) -> Path:
    from safetensors.torch import load_file, save_file

    shutil.copytree(adapter, out)
    weights = {name: 0.98 * tensor for name, tensor in load_file(adapter / "adapter_model.safetensors").items()}
    save_file(weights, out / "adapter_model.safetensors", metadata={"format": "pt"})
    return out


def changed_index(clone: Path, scratch: Path) -> str:
    """One page in a hundred, but those without a number, by the stages themselves."""
    raw, params, data = scratch / "raw", clone / "params", clone / "data"
    shutil.copytree(data / "raw/documents", raw)
    pages = [path for path in sorted(raw.rglob("*.md")) if re.search(r"\b\d\d?\b", path.read_text())]
    count = round(len(list(raw.rglob("*.*"))) / 100)
    for path in pages[:: len(pages) // count][:count]:
        path.write_text(re.sub(r"\b\d\d?\b", lambda match: str(int(match[0]) + 1), path.read_text(), count=1))
    documents(raw, scratch / "documents", scratch / "files.jsonl", load(DocumentsParams, params))
    chunks(scratch / "documents", scratch / "chunks", scratch / "kept.jsonl", load(ChunksParams, params))
    index(scratch / "chunks", data / "models/embedder", data / "retriever", scratch / "index", scratch / "index.json",
          str(scratch / "store"), scratch / "vectors.sqlite", load(IndexParams, params))  # fmt: skip
    found: Record = read_json(scratch / "index.json")
    return f"{count} of {len(list(raw.rglob('*.*')))} pages ({found['embedded']} passages)"


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        one(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
