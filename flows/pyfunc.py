"""What an MLflow version runs: `mlflow.pyfunc.load_model("models:/assistant@champion").predict(["How many days ...?"])`.

Models-from-code: MLflow stores this file as it is, not a pickle. It holds no weights; it opens the release that its manifest
names, from the stores that the environment names, after verifying every digest. Tandem has to be installed where it is loaded.
"""

from typing import Any, cast

import mlflow
from mlflow.pyfunc import PythonModel
from pydantic import BaseModel


class Source(BaseModel):
    """A passage that the model was given."""

    page: str
    heading: str
    passage: str
    score: float
    cited: bool


class Served(BaseModel):
    """The shape of an answer: MLflow takes the signature of the version from it."""

    answer: str
    sources: list[Source]
    arm: str
    release: str


class ReleaseModel(PythonModel):  # type: ignore[misc]
    """One input string, one answer with its sources and the id of the release, as a dictionary."""

    def load_context(self, context: Any) -> None:
        from pathlib import Path

        from flows.opening import open_version
        from flows.settings import read_settings

        text = Path(context.artifacts["release"]).read_text(encoding="utf-8")
        self.assistant = open_version(read_settings(), text)

    def predict(self, context: Any, model_input: list[str], params: dict[str, Any] | None = None) -> list[Served]:
        return [cast(Served, self.assistant.ask(question).to_json()) for question in model_input]


mlflow.models.set_model(ReleaseModel())
