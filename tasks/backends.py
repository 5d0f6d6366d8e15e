"""With which arithmetic an embedder computes: torch in its own precision, torch in bfloat16, or 8-bit integers by ONNX Runtime
or by OpenVINO.

Texts go through it in batches of equal cost, the longest first. A text's vector does not depend on the others of its batch
(in bfloat16, whose kernels differ by shape, but for some thousandths of a coordinate).
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.errors import InputError
from tasks.records import read_json

Vectors = npt.NDArray[np.float32]

# What `models` makes of the embedder for a backend of integers, beside its weights: graph, tokenizer, what else is asked of it
QUANTISED, OPENVINO = "model_int8.onnx", ("model_int8.xml", "model_int8.bin")
TOKENIZER, FACTS = "tokenizer_int8.json", "model_int8.json"
Run = Callable[[Mapping[str, Any]], Any]  # token ids and attention mask, (batch, length) each -> vectors, (batch, dimension)
# Two threads that hand OpenVINO a process' first arrays at the same time can wait for each other for ever (4 of 105 processes;
# none of 105 where one had been first): what the first conversion looks up once is made while Python's lock is held
FIRST_TENSOR = threading.Lock()
BATCH_TOKENS = 512  # of questions, whose callers have no params of the index; it changes the speed, not the vectors


class TorchBackend:
    """sentence-transformers' own `encode`, batch by batch."""

    def __init__(self, folder: Path, half: bool) -> None:
        self.model = sentence_model(folder)
        if half:
            self.model.bfloat16()
        self.prompts: Mapping[str, str | None] = self.model.prompts
        self.pooling = pooling(self.model)

    @property
    def max_tokens(self) -> int | None:
        """Of a text; what is beyond is cut."""
        return self.model.max_seq_length  # type: ignore[no-any-return]

    def cut_at(self, tokens: int) -> None:
        self.model.max_seq_length = tokens

    def vectors(self, texts: Sequence[str], prompt: str, batch_tokens: int) -> Vectors:
        """(n,) texts -> (n, dimension) unit vectors."""
        from torch.nn.functional import normalize

        def run(batch: list[int]) -> Vectors:
            some = [texts[position] for position in batch]
            found = self.model.encode(
                some, prompt=prompt, batch_size=len(some), convert_to_tensor=True, show_progress_bar=False
            ).float()  # bfloat16 is normalised here: there its length would be off by a thousandth
            return np.asarray(normalize(found, dim=1).cpu().numpy(), np.float32)

        return in_batches(run, lengths_of(self.model, texts, prompt), batch_tokens, self.model.get_embedding_dimension())


class OnnxBackend:
    """The graph of the whole model, its tokenizer and facts, as `tasks.quantise` made them: neither torch nor
    sentence-transformers is imported, which takes longer than embedding a question does."""

    name, runtime = "onnx-int8", "onnxruntime"

    def __init__(self, folder: Path) -> None:
        tokenizers = require("tokenizers", self.name)
        facts = read_json(folder / FACTS)
        self.prompts: Mapping[str, str | None] = facts["prompts"]
        self.pooling: str = facts["pooling"]
        self.max_tokens: int | None = facts["max_tokens"]
        self.dimension: int = facts["dimension"]
        self.padding: int = facts["padding"]
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))
        self.run = self.opened(folder)
        if self.max_tokens:
            self.cut_at(self.max_tokens)

    def opened(self, folder: Path) -> Run:
        self.session = open_session(folder / QUANTISED)
        self.workers = threads()
        return lambda inputs: self.session.run(None, inputs)[0]

    def cut_at(self, tokens: int) -> None:
        self.max_tokens = tokens
        self.tokenizer.enable_truncation(tokens)

    def vectors(self, texts: Sequence[str], prompt: str, batch_tokens: int) -> Vectors:
        """(n,) texts -> (n, dimension) unit vectors."""
        ids = [found.ids for found in self.tokenizer.encode_batch([prompt + text for text in texts])]

        def run(batch: list[int]) -> Vectors:
            tokens, mask = padded([ids[position] for position in batch], self.padding)
            return np.asarray(self.run({"input_ids": tokens, "attention_mask": mask}), np.float32)

        return in_batches(run, [len(each) for each in ids], batch_tokens, self.dimension, self.workers)


class OpenvinoBackend(OnnxBackend):
    """The same with a graph that `tasks.calibrate` made, in which an activation has one scale for all texts."""

    name, runtime = "openvino-int8", "openvino"

    def opened(self, folder: Path) -> Run:
        openvino = require(self.runtime, self.name)
        with FIRST_TENSOR:
            _ = openvino.Tensor(np.zeros(1, np.float32)).data
        self.workers = threads()
        settings = {
            "NUM_STREAMS": self.workers,  # a batch each, by one thread, as in ONNX Runtime
            "INFERENCE_NUM_THREADS": self.workers,
            "ENABLE_CPU_PINNING": False,  # two processes would want the same core
            "INFERENCE_PRECISION_HINT": "f32",  # of what is no integer; in bfloat16 a vector would change with its batch
        }
        model = openvino.Core().compile_model(str(folder / OPENVINO[0]), "CPU", settings)
        idle: deque[Any] = deque()  # requests, each for one thread at a time; a new one for each batch left cores idle a sixth

        def run(inputs: Mapping[str, Any]) -> Any:
            try:
                request = idle.pop()
            except IndexError:
                request = model.create_infer_request()
            found = request.infer(inputs)[0]
            idle.append(request)
            return found

        return run


INTEGERS = {each.name: each for each in (OnnxBackend, OpenvinoBackend)}


def pooling(model: Any) -> str:
    """The pooling mode's name as the model's own files give it ("mean", "cls", ...)."""
    modes = [module.get_config_dict() for module in model if type(module).__name__ == "Pooling"]
    return str(modes[0].get("pooling_mode", modes[0])) if modes else "none"


def open_backend(name: str, folder: Path) -> TorchBackend | OnnxBackend:
    return INTEGERS[name](folder) if name in INTEGERS else TorchBackend(folder, half=name == "torch-bf16")


def import_libraries(name: str) -> None:
    """What `open_backend` would import first."""
    if name in INTEGERS:
        require("tokenizers", name)
        require(INTEGERS[name].runtime, name)
    else:
        import sentence_transformers  # noqa: F401


def sentence_model(folder: Path, device: str | None = None, **model_kwargs: Any) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device=device, local_files_only=True, model_kwargs=model_kwargs)


def open_session(path: Path) -> Any:
    onnxruntime = require("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # `in_batches` keeps the cores busy, with less waiting for each other
    options.add_session_config_entry("optimization.enable_gelu_approximation", "1")  # 4 % faster, no further from torch
    options.log_severity_level = 3  # below errors it only tells of processors that it could not ask for their name
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def threads() -> int:
    """As many as torch would take: OMP_NUM_THREADS, which Ray sets too, or the cores that this process may use."""
    found = os.environ.get("OMP_NUM_THREADS") or "0"  # "4,2" gives a number for each level of nesting
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()  # the former on Linux
    return int(found.split(",")[0]) or here or 1


def require(name: str, backend: str = "onnx-int8") -> Any:
    """An optional package. Raises InputError where it is not installed."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(
            f"backend: {backend} in params/models.yaml needs the package {name}: pip install {name}, or set backend: torch"
        ) from error


def token_ids(model: Any, texts: Sequence[str], prompt: str) -> list[list[int]]:
    """Counting takes a hundredth of what embedding takes, and sorting by it saves more than that in padding."""
    prompted = [prompt + text for text in texts]
    return list(model.tokenizer(prompted, truncation=True, max_length=model.max_seq_length)["input_ids"]) if texts else []


def lengths_of(model: Any, texts: Sequence[str], prompt: str) -> list[int]:
    """In tokens; where the model's tokenizer is none of transformers', a token is about four characters."""
    if not callable(model.tokenizer):
        return [1 + len(text) // 4 for text in texts]
    return [len(ids) for ids in token_ids(model, texts, prompt)]


def padded(rows: list[list[int]], padding: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Token ids and attention mask, (batch, longest) each."""
    tokens = np.full((len(rows), max(map(len, rows))), padding, np.int64)
    mask = np.zeros_like(tokens)
    for place, row in enumerate(rows):
        tokens[place, : len(row)], mask[place, : len(row)] = row, 1
    return tokens, mask


def in_batches(
    run: Callable[[list[int]], Vectors], lengths: Sequence[int], batch_tokens: int, dimension: int, workers: int = 1
) -> Vectors:
    """`run` turns the positions of a batch into their vectors; these return in the order of the texts.

    `workers` batches at a time, each by one thread: all cores on one batch wait for each other after each of its operations.
    """
    vectors = np.empty((len(lengths), dimension), np.float32)

    def fill(batch: list[int]) -> None:
        vectors[batch] = run(batch)

    if workers > 1:  # what is one batch would leave cores idle
        batch_tokens = min(batch_tokens, -(-sum(lengths) // workers))
    longest_first = list(batches(lengths, batch_tokens))[::-1]  # so that no long one is the last to end
    if workers == 1 or len(longest_first) < 2:
        for batch in longest_first:
            fill(batch)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(fill, longest_first))
    return vectors


def batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Positions, the shortest text first: padded to its longest, no batch holds more than `batch_tokens`, but for a single text.

    A budget in tokens rather than a number of texts keeps short and long ones alike inside the processor's cache.
    """
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[position] * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch
