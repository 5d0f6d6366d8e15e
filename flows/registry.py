"""The MLflow registry: one registered model, one version per release, one alias that moves."""

import tempfile
from collections.abc import Mapping
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, NamedTuple

from flows.settings import ALIAS, MODEL_NAME, Settings
from flows.tracking import client
from tasks.errors import IntegrityError
from tasks.failpoints import failpoint

RELEASE_TAG = "release"  # the whole release id; versions are found by it, never by their number alone
LEDGER_TAG = "ledger"  # the number of the ledger entry that made the release live last
# What answering imports; named, not inferred: inference imports the whole model and takes seconds. Tandem itself is on no package
# index: whoever loads a version does so where it is installed, as the description of every version says.
ANSWERING = ("lancedb", "mlflow", "numpy", "onnxruntime", "peft", "pyarrow", "pydantic", "pyyaml", "safetensors",
             "sentence-transformers", "tokenizers", "torch", "transformers")  # fmt: skip
HOW_TO_LOAD = (
    "Load it in an environment in which Tandem is installed, with its stores at hand: see the README; to serve it: mlflow models "
    "serve --env-manager local."
)


class Version(NamedTuple):
    """`release` and `ledger` as its tags say: empty and 0 where somebody else made it."""

    number: int
    release: str
    ledger: int


def versions(settings: Settings) -> list[Version]:
    """All of them, the oldest first."""
    found = client(settings.tracking_uri).search_model_versions(f"name = '{MODEL_NAME}'")
    return sorted(Version(int(each.version), each.tags.get(RELEASE_TAG, ""), int(each.tags.get(LEDGER_TAG, 0))) for each in found)


def number_of(found: list[Version], release: str) -> int | None:
    """The version that holds this release. Numbers begin anew where a registry was lost, so that the tag decides."""
    return next((each.number for each in found if each.release == release), None)


def requirements() -> list[str]:
    """Pinned as installed here, without the local part of a version (2.13.0+cpu), which no package index has."""
    return [f"{name}=={installed(name).split('+')[0]}" for name in ANSWERING]


def registered_version(settings: Settings, release_id: str) -> int | None:
    """The version that holds this release; a promotion that was killed after registering it finds it again."""
    return number_of(versions(settings), release_id)


def register(settings: Settings, run_id: str, release_id: str, manifest: str, tags: Mapping[str, str], text: str) -> int:
    """Log the release as a models-from-code pyfunc on the flow's run, and make it a version. Idempotent by release id."""
    if registered_version(settings, release_id) is None:
        make_version(settings, run_id, release_id, manifest, tags, text)
    return only_version(settings, release_id)


def make_version(settings: Settings, run_id: str, release_id: str, manifest: str, tags: Mapping[str, str], text: str) -> None:
    failpoint("registry.before-model")
    model_id = log_model(settings, run_id, manifest)
    mlflow = client(settings.tracking_uri)
    make_registered_model(settings)
    failpoint("registry.before-version")
    every = {RELEASE_TAG: release_id, **tags}
    said = f"{text}\n\n{HOW_TO_LOAD}"
    mlflow.create_model_version(MODEL_NAME, f"models:/{model_id}", run_id, tags=every, description=said, model_id=model_id)


def only_version(settings: Settings, release_id: str) -> int:
    """The oldest that holds this release. Others go: where a reply is lost, MLflow's client asks again, and gets another one."""
    from mlflow.exceptions import MlflowException

    first, *others = [each.number for each in versions(settings) if each.release == release_id]
    for number in others:
        try:
            client(settings.tracking_uri).delete_model_version(MODEL_NAME, str(number))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # as where it is this reply that was lost
                raise
    return first


def log_model(settings: Settings, run_id: str, manifest: str) -> str:
    """The code that answers and the manifest that it answers from; its model id. No weights, no pickle: they are in the store."""
    import mlflow

    mlflow.set_tracking_uri(settings.tracking_uri)
    with tempfile.TemporaryDirectory() as folder, mlflow.start_run(run_id=run_id):
        path = Path(folder) / "release.json"
        path.write_text(manifest, encoding="utf-8")
        info = mlflow.pyfunc.log_model(
            name=MODEL_NAME,
            python_model=str(Path(__file__).with_name("pyfunc.py")),
            artifacts={"release": str(path)},
            pip_requirements=requirements(),
        )
    client(settings.tracking_uri).update_run(run_id, status="RUNNING")  # leaving `start_run` ended the flow's run, which goes on
    return str(info.model_id)


def make_registered_model(settings: Settings) -> None:
    from mlflow.exceptions import MlflowException

    text = (
        "One version is one release: base model, adapter, index, embedder and prompt together. Only the alias `champion` moves."
    )
    try:
        client(settings.tracking_uri).create_registered_model(MODEL_NAME, description=text)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def champion_version(settings: Settings) -> int | None:
    """Where the alias stands; None before the first release, or when somebody deleted alias or version."""
    from mlflow.exceptions import MlflowException

    try:
        found = client(settings.tracking_uri).get_registered_model(MODEL_NAME).aliases.get(ALIAS)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return None if found is None else int(found)


def move_alias(settings: Settings, version: int) -> None:
    """The ledger has already decided; this is how MLflow's users find the decision. `promotion.put_alias` reads it back."""
    client(settings.tracking_uri).set_registered_model_alias(MODEL_NAME, ALIAS, str(version))


def delete_version(settings: Settings, version: int) -> None:
    """With the model that it holds, whose artifact is the release's manifest. The alias has to stand elsewhere."""
    mlflow = client(settings.tracking_uri)
    made = mlflow.get_model_version(MODEL_NAME, str(version))
    if champion_version(settings) == version:
        raise IntegrityError(f"the alias {ALIAS} stands at version {version}, which was to go; run: tandem doctor --mend")
    mlflow.delete_model_version(MODEL_NAME, str(version))
    if made.model_id:
        mlflow.delete_logged_model(made.model_id)


def tag_version(settings: Settings, version: int, tags: Mapping[str, Any]) -> None:
    for key, value in tags.items():
        client(settings.tracking_uri).set_model_version_tag(MODEL_NAME, str(version), key, str(value))
