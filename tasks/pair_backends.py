"""With which arithmetic a cross-encoder scores pairs of texts: torch in float32, or ONNX Runtime in 8-bit integers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.backends import BATCH_TOKENS, FACTS, QUANTISED, TOKENIZER, in_batches, open_session, require, threads
from tasks.records import read_json

Pairs = Sequence[tuple[str, str]]
Logits = npt.NDArray[np.float32]  # (pairs,)
CHARACTERS_PER_TOKEN = 16  # of English text there are four or five


class TorchPairs:
    """transformers' own sequence classification."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        import torch
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        self.model = pair_model(folder).to("cuda" if torch.cuda.is_available() else "cpu")
        self.max_tokens = min(max_tokens, self.tokenizer.model_max_length)

    def logits(self, pairs: Pairs) -> Logits:
        import torch

        rows = [self.tokenizer(*pair, truncation=True, max_length=self.max_tokens) for pair in cut(pairs, self.max_tokens)]

        def run(batch: list[int]) -> Logits:
            inputs = self.tokenizer.pad([rows[position] for position in batch], return_tensors="pt").to(self.model.device)
            with torch.inference_mode():
                return np.asarray(self.model(**inputs).logits[:, 0].float().cpu().numpy(), np.float32)

        return scored(run, [len(row["input_ids"]) for row in rows])


class OnnxPairs:
    """The graph, tokenizer and facts that `tasks.quantise` made: neither torch nor transformers is imported."""

    def __init__(self, folder: Path, max_tokens: int) -> None:
        tokenizers = require("tokenizers")
        facts = read_json(folder / FACTS)
        self.padding: dict[str, int] = facts["padding"]
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))
        self.max_tokens = min(max_tokens, facts["max_tokens"])
        self.tokenizer.enable_truncation(self.max_tokens)
        self.session = open_session(folder / QUANTISED)
        self.inputs = [each.name for each in self.session.get_inputs()]  # of what the tokenizer gives, what the model reads

    def logits(self, pairs: Pairs) -> Logits:
        found = self.tokenizer.encode_batch(cut(pairs, self.max_tokens))
        columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}

        def run(batch: list[int]) -> Logits:
            some = [found[position] for position in batch]
            longest = max(len(each.ids) for each in some)
            tokens = {name: np.full((len(some), longest), self.padding[name], np.int64) for name in self.inputs}
            for name, rows in tokens.items():
                for row, each in zip(rows, some, strict=True):
                    row[: len(each.ids)] = getattr(each, columns[name])
            return np.asarray(self.session.run(None, tokens)[0], np.float32)

        return scored(run, [len(each.ids) for each in found], threads())


def cut(pairs: Pairs, max_tokens: int) -> list[tuple[str, str]]:
    """What no tokenizer would keep anyway. Of what it cuts off it makes every combination of both sides: a question of 8,000
    characters beside a passage of 100,000 took all memory."""
    most = CHARACTERS_PER_TOKEN * max_tokens
    return [(question[:most], passage[:most]) for question, passage in pairs]


def scored(run: Callable[[list[int]], Logits], lengths: Sequence[int], workers: int = 1) -> Logits:
    """(pairs,), in their order; a pair's score does not depend on the others of its batch."""
    return in_batches(lambda batch: run(batch)[:, None], lengths, BATCH_TOKENS, 1, workers)[:, 0]


def pair_model(folder: Path, **kwargs: Any) -> Any:
    return loaded(folder, **kwargs)[0]


def untrained(folder: Path) -> list[str]:
    """The weights that its files lack; transformers makes them up of random numbers, with no more than a warning."""
    return sorted(loaded(folder)[1]["missing_keys"])


def loaded(folder: Path, **kwargs: Any) -> Any:
    """In float32, whatever its file holds: half precision is slow on a processor and orders near passages by chance."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model, told = AutoModelForSequenceClassification.from_pretrained(
        str(folder), local_files_only=True, dtype=torch.float32, output_loading_info=True, **kwargs
    )
    return model.eval(), told


def open_pair_backend(name: str, folder: Path, max_tokens: int) -> TorchPairs | OnnxPairs:
    return OnnxPairs(folder, max_tokens) if name == "onnx-int8" else TorchPairs(folder, max_tokens)
