"""An embedder as one OpenVINO graph whose linear layers multiply 8-bit integers, by NNCF's post-training quantisation.

What `tasks.quantise` finds for each token while embedding is found here once: the range of an activation, over the texts of
templates/calibration.txt. They are no part of any corpus, or a changed page would change the embedder.
"""

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tasks.backends import OPENVINO, TOKENIZER, OpenvinoBackend, require
from tasks.errors import InputError
from tasks.quantise import ADVICE, check_vectors_agree, export_embedder, quantise_embedder

TEXTS = Path(__file__).parent / "templates/calibration.txt"  # one a line
NUMBERED = re.compile(r'(?<= name=")(\w+?)(?:_\d+)+(?=")')


def make_graph(folder: Path, backend: str) -> None:
    """What the backend needs beside the weights of an embedder; nothing where torch computes."""
    if backend == "onnx-int8":
        quantise_embedder(folder)
    elif backend == "openvino-int8":
        calibrate(folder)


def calibrate(folder: Path) -> None:
    """Write graph, tokenizer and facts into the embedder's folder. Raises InputError where its architecture does not allow it."""
    os.environ.setdefault("NNCF_CI", "1")  # its own word for: report nothing to its makers
    openvino, nncf = (require(name, OpenvinoBackend.name) for name in ("openvino", "nncf"))
    with TemporaryDirectory(prefix="tandem-openvino-") as scratch:
        try:
            export_embedder(folder, Path(scratch) / "whole.onnx")
            graph = openvino.Core().read_model(str(Path(scratch) / "whole.onnx"))
            texts = inputs(folder)
            kind = nncf.ModelType.TRANSFORMER
            made = nncf.quantize(graph, nncf.Dataset(texts), subset_size=len(texts), model_type=kind)
        except Exception as error:  # of the tracer, of either library: each has types of its own
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(f"{folder.name} cannot be made an OpenVINO graph ({said[0]}); {ADVICE}") from error
        openvino.save_model(made, str(folder / OPENVINO[0]), compress_to_fp16=False)
    name_by_place(folder / OPENVINO[0])
    check_vectors_agree(folder, OpenvinoBackend)


def inputs(folder: Path) -> list[dict[str, Any]]:
    """One text each, so that no padding is among what is measured."""
    tokenizer = require("tokenizers", OpenvinoBackend.name).Tokenizer.from_file(str(folder / TOKENIZER))
    found = tokenizer.encode_batch(TEXTS.read_text(encoding="utf-8").splitlines())
    return [{"input_ids": np.array([each.ids]), "attention_mask": np.ones((1, len(each.ids)), np.int64)} for each in found]


def name_by_place(path: Path) -> None:
    """A layer without a name is numbered by how many the process has made before: the same model would have another digest."""
    places: dict[str, str] = {}

    def placed(match: re.Match[str]) -> str:
        return places.setdefault(match[0], f"{match[1]}_{len(places)}")

    path.write_text(NUMBERED.sub(placed, path.read_text(encoding="utf-8")), encoding="utf-8")
