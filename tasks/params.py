"""Which knobs exist, their type and bounds. The values stand in params/*.yaml, complete: no default lives here.

Every class reads one file. Keys that a class does not know are refused with the nearest one that it does.
"""

import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from tasks.params_files import Glob, Group, Params, Pattern, check_template, check_value

Arm = Literal["prompt", "rag", "lora", "rag+lora"]
ARMS: tuple[Arm, ...] = ("prompt", "rag", "lora", "rag+lora")
Policy = Literal["refuse", "redact", "keep"]
Precision = Literal["float32", "bfloat16"]
Backend = Literal["torch", "torch-bf16", "onnx-int8", "openvino-int8"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
Engine = Literal["local", "ray"]  # this process, or Ray Data

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Region = Annotated[str, Field(pattern="^[A-Z]{2}$")]


def uses_passages(arm: str) -> bool:
    return "rag" in arm.split("+")


def uses_adapter(arm: str) -> bool:
    return "lora" in arm.split("+")


class Source(Group):
    """Where a model comes from."""

    source: str
    id: str
    revision: str

    @model_validator(mode="after")
    def pinned(self) -> Self:
        if self.source == "hub" and not (self.id and _is_commit(self.revision)):
            raise ValueError("a hub model needs `id` and `revision`, the full 40-digit commit (branches move)")
        if self.source == "folder" and not self.id:
            raise ValueError("a folder model needs its path in `id`")
        return self


class ModelSource(Source):
    source: Literal["builtin", "hub", "folder"]


class EmbedderSource(ModelSource):
    query_prompt: str
    passage_prompt: str
    max_tokens: Positive
    backend: Backend


class RerankerSource(Source):
    source: Literal["none", "hub", "folder"]
    max_tokens: Positive
    backend: Literal["torch", "onnx-int8"]


class ModelsParams(Params):
    file = "models.yaml"
    base: ModelSource
    embedder: EmbedderSource
    reranker: RerankerSource


class DocumentsParams(Params):
    file = "documents.yaml"
    max_megabytes: Annotated[float, Field(gt=0)]
    max_pdf_pages: Positive
    engine: Engine


class ChunksParams(Params):
    file = "chunks.yaml"
    max_words: Annotated[int, Field(ge=8)]
    join_below_words: Natural
    table_cell: str

    @model_validator(mode="after")
    def cell_is_told(self) -> Self:
        if self.table_cell:
            check_template("table_cell", self.table_cell, {"row", "value"}, {"column", "row", "value"})
        return self


class IndexParams(Params):
    file = "index.yaml"
    language: str
    stem: bool
    remove_stop_words: bool
    exact_below_rows: Natural
    min_recall: Share
    recall_sample: Positive
    batch_tokens: Positive
    passages_per_commit: Positive
    engine: Engine


class RetrieverParams(Params):
    file = "retriever.yaml"
    sides: Literal["none", "query", "both"]
    rank: Positive
    alpha: Positive
    targets: str | list[str]
    learning_rate: Annotated[float, Field(ge=0)]
    warmup_steps: Natural
    epochs: Annotated[float, Field(gt=0)]
    batch_size: Annotated[int, Field(ge=2)]
    negatives: Natural
    max_nearness: Share
    scale: Annotated[float, Field(gt=0)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    resamples: Positive
    threads: Natural
    seed: Natural


class QuestionsParams(Params):
    file = "questions.yaml"
    train: Share
    validation: Share
    test: Share
    seed: Natural
    max_rejected: Share
    near_duplicate: Annotated[float, Field(ge=0.6, le=1)]
    train_never: list[Glob]

    @model_validator(mode="after")
    def shares_add_up(self) -> Self:
        if abs(self.train + self.validation + self.test - 1) > 1e-9:
            raise ValueError("`train`, `validation` and `test` must add up to 1")
        return self


class RetrievalParams(Params):
    file = "retrieval.yaml"
    candidates: Positive
    k: Annotated[list[Positive], Field(min_length=1)]
    k_tolerance: Share
    fusion: Annotated[list[Literal["ratio", "minmax", "rrf"]], Field(min_length=1)]
    text_weights: Annotated[list[Share], Field(min_length=1)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    resamples: Positive
    seed: Natural
    rerank: Annotated[int, Field(ge=10)]  # retrieval is judged on its first ten passages

    @model_validator(mode="after")
    def reaches(self) -> Self:
        if self.rerank < max(self.k):
            raise ValueError(f"`rerank` is {self.rerank}, below the largest `k`: passages of two kinds of scores would be shown")
        return self


PLACEHOLDERS = {  # of the templates: what has to stand in one, and what may
    "passage": (("text",), ("number", "heading")),
    "with_passages": (("question", "passages"), ()),
    "bare": (("question",), ()),
    "citation": ((), ("number",)),
}
MARK = "[{number}]"  # the one form of a citation that tasks.prompts finds in an answer


class PromptParams(Params):
    file = "prompt.yaml"
    system: str
    passage: str
    with_passages: str
    bare: str
    shots: dict[Arm, Natural]
    abstention: str
    abstention_patterns: Annotated[list[Pattern], Field(min_length=1)]
    citation: str
    max_prompt_tokens: Positive
    max_new_tokens: Positive
    precision: Literal["auto", Precision]
    seed: Natural

    @model_validator(mode="after")
    def usable(self) -> Self:
        for name, (needed, allowed) in PLACEHOLDERS.items():
            check_template(name, getattr(self, name), set(needed), {*needed, *allowed})
        for name in ("citation", "passage") if self.citation else ():
            if MARK not in getattr(self, name):
                raise ValueError(f'`{name}` needs {MARK}, the one form of a citation that is recognised; or set `citation: ""`')
        return self

    @model_validator(mode="after")
    def own_abstention_is_recognised(self) -> Self:
        if not any(re.search(pattern, self.abstention, re.IGNORECASE) for pattern in self.abstention_patterns):
            raise ValueError("no pattern of `abstention_patterns` matches `abstention`: who answers so would count as wrong")
        return self

    @model_validator(mode="after")
    def shots_for_arms_without_adapter(self) -> Self:
        missing = [arm for arm in ARMS if not uses_adapter(arm) and arm not in self.shots]
        if missing:
            raise ValueError(f"`shots` needs every arm without an adapter; {', '.join(missing)} is missing")
        taught = [arm for arm in self.shots if uses_adapter(arm)]
        if taught:
            raise ValueError(f"`shots` of {', '.join(taught)}: an adapter learns from examples without shots; remove the key")
        return self


class ExamplesParams(Params):
    file = "examples.yaml"
    bare_share: Share
    without_right_share: Share
    replay_share: Annotated[float, Field(ge=0, le=0.5)]
    max_train: Positive
    max_validation: Positive
    secrets: Policy
    personal_data: Policy
    phone_regions: list[Region]
    seed: Natural


class AdapterParams(Params):
    file = "adapter.yaml"
    variant: Literal["lora", "dora", "rslora", "qlora"]
    rank: Positive
    alpha: Positive
    dropout: Share
    targets: str | list[str]
    learning_rate: Annotated[float, Field(gt=0)]
    schedule: Literal["constant", "linear", "cosine"]
    warmup_steps: Natural
    epochs: Annotated[float, Field(gt=0)]
    batch_size: Positive
    batch_tokens: Positive
    evaluations: Positive
    patience: Positive
    max_tokens: Positive
    max_perplexity_ratio: Annotated[float, Field(ge=1)]
    max_probe_loss: Annotated[float, Field(ge=0, le=1)]
    precision: Literal["auto", "float32", "bfloat16"]
    threads: Natural
    seed: Natural


class SweepParams(Params):
    file = "sweep.yaml"
    grid: Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], Field(min_length=1)]
    most: Positive
    tolerance: Share
    seed: Natural

    @model_validator(mode="after")
    def adapter_knows_them(self) -> Self:
        for key, values in self.grid.items():
            if key not in AdapterParams.model_fields:
                raise ValueError(f"`grid` holds {key!r}, which is no key of params/adapter.yaml")
            for value in values:
                check_value(AdapterParams, key, value)
        return self


class StudyParams(Params):
    file = "study.yaml"
    shares: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1)]
    bases: list[ModelSource]
    questions: Annotated[int, Field(ge=2)]
    seed: Natural

    @model_validator(mode="after")
    def curve_ends_with_all(self) -> Self:
        if self.shares != sorted(set(self.shares)) or self.shares[-1] != 1:
            raise ValueError("`shares` must ascend and end with 1.0, all training examples, such as [0.1, 0.3, 1.0]")
        return self


def _is_commit(revision: str) -> bool:
    return len(revision) == 40 and all(digit in "0123456789abcdef" for digit in revision)
