"""The knobs of evaluation and gate: what is measured of an answer, what it is worth, what a release needs."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tasks.params import Natural, Positive, Region, Share
from tasks.params_files import Dotted, Group, Params, Pattern, Schema


class Rule(Group):
    """A rule of a person's own: one of the three."""

    pattern: Pattern | None = None
    json_schema: Schema | None = None
    function: Dotted | None = None

    @model_validator(mode="after")
    def one_kind(self) -> Self:
        if sum(kind is not None for kind in (self.pattern, self.json_schema, self.function)) != 1:
            raise ValueError(
                "a rule has one of `pattern` (regular expression), `json_schema` and `function` (folder.module.name)"
            )
        return self


Metric = Literal[
    "groundedness", "citation_precision", "citation_recall", "abstention_precision", "abstention_recall", "semantic_similarity",
    "safety", "no_personal_data",
]  # fmt: skip


class Prices(Group):
    """What answering costs in money, for the report alone; all 0: nobody knows."""

    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    prompt_tokens: Annotated[float, Field(ge=0)]
    completion_tokens: Annotated[float, Field(ge=0)]
    machine_hour: Annotated[float, Field(ge=0)]


class EvaluateParams(Params):
    file = "evaluate.yaml"
    engine: Literal["transformers", "vllm"]
    batch_tokens: Positive
    latency_sample: Positive
    style: dict[str, Pattern]
    metrics: list[Metric]
    forbidden: list[Pattern]
    phone_regions: list[Region]
    rules: dict[Annotated[str, Field(pattern=r"^[\w-]{1,40}$")], Rule]
    prices: Prices
    resamples: Positive
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    seed: Natural


class JudgeParams(Params):
    file = "judge.yaml"
    model: Annotated[str, Field(pattern=r"^$|^[\w-]+:/\S+$")]
    questions: Positive
    labels: str
    seed: Natural


class PrimaryWeights(Group):
    """What one question is worth: a weighted mean of component scores, each in [0, 1]."""

    fact: Share
    citation: Share
    style: Share

    @model_validator(mode="after")
    def weights_add_up(self) -> Self:
        if abs(self.fact + self.citation + self.style - 1) > 1e-9:
            raise ValueError("the weights of `primary` must add up to 1")
        return self


class Floors(Group):
    primary: Share
    fact: Share
    abstention: Share


class CostWeights(Group):
    prompt_token: Annotated[float, Field(ge=0)]
    completion_token: Annotated[float, Field(ge=0)]
    retrieval: Annotated[float, Field(ge=0)]
    adapter: Annotated[float, Field(ge=0)]


class GateParams(Params):
    file = "gate.yaml"
    primary: PrimaryWeights
    margin: Annotated[float, Field(gt=0, le=1)]
    alpha: Annotated[float, Field(gt=0, lt=0.5)]
    horizon: Positive
    resamples: Annotated[int, Field(ge=200)]
    seed: Natural
    min_questions: Positive
    slice_questions: Positive
    min_recall: Share
    floors: Floors
    cost: CostWeights
