"""Where a person opens the two UIs: of shared servers where the environment names them, else as `make up` starts them."""

import os
from collections.abc import Mapping

from flows.settings import Settings, shown
from tasks.errors import InputError

HOST = "127.0.0.1"
TRAINING_VIEW = "workflowType=machine_learning"  # MLflow otherwise opens on traces, of which there are none


def port(variable: str, default: int, environment: Mapping[str, str]) -> int:
    value = environment.get(variable, str(default))
    if not value.isascii() or not value.isdigit() or not 0 < int(value) < 65536:
        raise InputError(f"{variable}={value} is not a port; give a number such as {default}")
    return int(value)


def mlflow_address(settings: Settings, environment: Mapping[str, str] = os.environ) -> str:
    if settings.tracking_uri.startswith(("http://", "https://")):
        return settings.tracking_uri.rstrip("/")
    return f"http://{HOST}:{port('MLFLOW_PORT', 5000, environment)}"


def prefect_address(environment: Mapping[str, str] = os.environ) -> str:
    shared = environment.get("PREFECT_API_URL", "")
    return shared.rstrip("/").removesuffix("/api") or f"http://{HOST}:{port('PREFECT_PORT', 4200, environment)}"


def mlflow_run(settings: Settings, experiment: str, run_id: str) -> str:
    return f"{shown(mlflow_address(settings))}/#/experiments/{experiment}/runs/{run_id}?{TRAINING_VIEW}"
