"""A model as one ONNX graph whose linear layers multiply 8-bit integers: an embedder, tokens to unit vector, or a cross-encoder,
tokens of a pair to its score.

A weight has one scale per column, an activation one per token, found as it comes by. onnxruntime's own dynamic quantisation takes
one scale for a whole batch: it is no faster, further from the original (cosine 0.993 where this has 0.996), and a text's vector
would change with the others in its batch. Weights use 7 of their 8 bits: then processors without VNNI, whose pair sums saturate
at 16 bits, get the very same integers.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tasks.backends import FACTS, QUANTISED, TOKENIZER, OnnxBackend, TorchBackend, pooling, require, sentence_model
from tasks.errors import InputError
from tasks.pair_backends import OnnxPairs, TorchPairs, pair_model
from tasks.records import write_json

WEIGHT_LEVELS = 63  # -63..63; an activation has 1..255 around ZERO
ACTIVATION_LEVELS, ZERO = 127, 128
OPSET = 18
LEAST_COSINE = 0.97  # between a text's vector before and after; a graph that lost its pooling or padding is far below
TEXTS = (
    "leave",
    "How many days of paid leave do I get?",
    "Error 4012 means that the tank is empty; fill it, then close the lid.",
)
PAIRS = [(question, text) for question in (*TEXTS[:2], "What does error 4012 mean?") for text in (*TEXTS, "Vans leave at 5:45.")]
LEAST_CORRELATION = 0.95  # of scores before and after; of a pair that the model is unsure of it may move by a tenth of the range
ADVICE = "set backend: torch in params/models.yaml"


def quantise_embedder(folder: Path) -> None:
    """Write graph, tokenizer and facts into its folder. Raises InputError where its architecture does not allow it."""
    quantise(folder, export_embedder)
    check_vectors_agree(folder)


def quantise_reranker(folder: Path) -> None:
    """The same of a cross-encoder."""
    quantise(folder, export_reranker)
    check_scores_agree(folder)


def quantise(folder: Path, export: Callable[[Path, Path], None]) -> None:
    require("onnxruntime")
    onnx = require("onnx")
    target = folder / QUANTISED
    try:
        export(folder, target)
        graph = onnx.load(str(target))
        replace_linear_layers(graph)
        onnx.save(graph, str(target))
    except Exception as error:  # of the tracer, of the exporter, of protobuf: each has types of its own
        raise InputError(f"{folder.name} cannot be exported to ONNX ({str(error).splitlines()[0]}); {ADVICE}") from error


def export_embedder(folder: Path, target: Path) -> None:
    """The model as it is, in float32, with what OnnxBackend needs in order to do without sentence-transformers."""
    import torch

    model = sentence_model(folder, device="cpu", attn_implementation="eager").float().eval()
    facts = {
        "prompts": model.prompts,
        "pooling": pooling(model),
        "max_tokens": model.max_seq_length,
        "dimension": model.get_embedding_dimension(),
        "padding": model.tokenizer.pad_token_id,
    }
    write_beside(folder, model.tokenizer, facts)

    class Whole(torch.nn.Sequential):  # type: ignore[misc]
        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            features = {"input_ids": input_ids, "attention_mask": attention_mask}  # (batch, length) each
            for module in self:
                features = module(features)
            return torch.nn.functional.normalize(features["sentence_embedding"], dim=1)  # (batch, dimension)

    tokens = model.tokenizer(list(TEXTS), padding=True, return_tensors="pt")
    trace(Whole(*model), {name: tokens[name] for name in ("input_ids", "attention_mask")}, "embedding", target)


def export_reranker(folder: Path, target: Path) -> None:
    import torch
    from transformers import AutoTokenizer

    model = pair_model(folder, attn_implementation="eager")
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    tokens = tokenizer(*map(list, zip(*PAIRS, strict=True)), padding=True, return_tensors="pt")
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in tokens]
    padding = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0, "token_type_ids": tokenizer.pad_token_type_id}
    write_beside(folder, tokenizer, {"padding": padding, "max_tokens": tokenizer.model_max_length})

    class Whole(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *given: Any) -> Any:
            return self.model(**dict(zip(names, given, strict=True))).logits[:, 0]  # (batch,)

    trace(Whole(), {name: tokens[name] for name in names}, "score", target)


def trace(module: Any, inputs: Mapping[str, Any], output: str, target: Path) -> None:
    """The tracing exporter: the newer one gives a graph that onnxruntime 1.31 cannot open."""
    import torch

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer, about shapes; what comes out is compared afterwards
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            str(target),
            input_names=list(inputs),
            output_names=[output],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in inputs} | {output: {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )


def write_beside(folder: Path, tokenizer: Any, facts: Mapping[str, Any]) -> None:
    plain = tokenizer.backend_tokenizer
    plain.no_truncation()
    plain.no_padding()
    plain.save(str(folder / TOKENIZER))
    write_json(folder / FACTS, facts)


def replace_linear_layers(model: Any) -> None:
    """Every product with a constant matrix, in place. Raises InputError where there is none."""
    from onnx import helper, numpy_helper

    graph = model.graph
    matrices = {each.name: numpy_helper.to_array(each) for each in graph.initializer if len(each.dims) == 2}
    layers = [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in matrices]
    if not layers:
        raise InputError("no linear layer found in it")
    constants = dict(scalars())
    nodes: dict[int, list[Any]] = {}
    known: set[str] = set()  # activations that several layers read (query, key and value) are quantised once
    for node in layers:
        weights = matrices[node.input[1]]
        constants |= quantised(node.output[0], weights) | {f"rows_{len(weights)}": np.array([-1, len(weights)])}
        before = [] if node.input[0] in known else list(quantise_rows(node.input[0], f"rows_{len(weights)}"))
        known.add(node.input[0])
        nodes[id(node)] = [*before, *multiply(node.input[0], node.output[0])]
    replaced = [new for node in graph.node for new in nodes.get(id(node), [node])]
    read = {name for node in replaced for name in node.input}
    kept = [each for each in graph.initializer if each.name in read]
    made = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*kept, *made])
    graph.node.extend(replaced)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def scalars() -> Iterator[tuple[str, Any]]:
    yield "int8_zero", np.array(ZERO, np.uint8)
    yield "int8_one", np.array(1, np.float32)
    yield "int8_step", np.array([1 / ACTIVATION_LEVELS], np.float32)
    yield "int8_least", np.array([1e-8], np.float32)
    yield "int8_last", np.array([-1], np.int64)


def quantised(name: str, weights: Any) -> dict[str, Any]:
    """(in, out) float32 -> integers and (out,) scales, by name."""
    scale = np.maximum(np.abs(weights).max(axis=0), 1e-12) / WEIGHT_LEVELS
    return {f"{name}_int8": np.rint(weights / scale).astype(np.int8), f"{name}_scale": scale.astype(np.float32)}


def quantise_rows(name: str, shape: str) -> Iterator[Any]:
    """(..., in) float32 -> uint8 around ZERO and the tokens' scales (..., 1)."""
    from onnx import helper

    steps = [
        ("Abs", [name], "abs", {}),
        ("ReduceMax", [f"{name}_abs", "int8_last"], "max", {"keepdims": 1}),
        ("Max", [f"{name}_max", "int8_least"], "range", {}),
        ("Mul", [f"{name}_range", "int8_step"], "steps", {}),
        ("Reshape", [f"{name}_steps", "int8_last"], "flat", {}),  # (tokens,)
        ("Reshape", [name, shape], "matrix", {}),  # (tokens, in)
        ("Shape", [f"{name}_flat"], "tokens", {}),
        ("Expand", ["int8_zero", f"{name}_tokens"], "zeros", {}),
        ("QuantizeLinear", [f"{name}_matrix", f"{name}_flat", f"{name}_zeros"], "integers", {"axis": 0}),
        ("Shape", [name], "shape", {}),
        ("Reshape", [f"{name}_integers", f"{name}_shape"], "uint8", {}),
    ]
    for kind, inputs, output, attributes in steps:
        yield helper.make_node(kind, inputs, [f"{name}_{output}"], name=f"{name}_{output}", **attributes)


def multiply(name: str, output: str) -> Iterator[Any]:
    from onnx import helper

    inputs = [f"{name}_uint8", f"{output}_int8", "int8_one", f"{output}_scale", "int8_zero"]
    yield helper.make_node(
        "MatMulIntegerToFloat", inputs, [f"{output}_product"], name=f"{output}_product", domain="com.microsoft"
    )
    yield helper.make_node("Mul", [f"{output}_product", f"{name}_steps"], [output], name=f"{output}_scaled")


def check_vectors_agree(folder: Path, kind: type[OnnxBackend] = OnnxBackend) -> None:
    """In one batch, so that padding and its mask are seen as well."""
    before, after = (backend.vectors(TEXTS, "", 10_000) for backend in (TorchBackend(folder, half=False), kind(folder)))
    least = float((before * after).sum(axis=1).min())
    if not least >= LEAST_COSINE:
        raise InputError(f"{folder.name} in 8-bit integers gives other vectors (cosine {least:.3f}); {ADVICE}")


def check_scores_agree(folder: Path) -> None:
    """Likewise. A model that gives all pairs one score has no correlation with anything, and is of no use."""
    before, after = (backend.logits(PAIRS) for backend in (TorchPairs(folder, 10_000), OnnxPairs(folder, 10_000)))
    found = float(np.corrcoef(before, after)[0, 1]) if before.std() > 0 else 0.0
    if not found >= LEAST_CORRELATION:
        raise InputError(f"{folder.name} in 8-bit integers gives other scores (correlation {found:.3f}); {ADVICE}")
