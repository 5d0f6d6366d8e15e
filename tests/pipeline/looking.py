"""What tests start from, and what they look at: the stages that ran, the entries, the vectors."""

import sqlite3
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows import ledger
from flows.settings import Settings, read_settings
from flows.tracking import client, experiment_id


@dataclass(frozen=True)
class World:
    """Clones in the states that tests start from, and what the flows that made them returned."""

    folder: Path
    first: Path
    first_outcome: dict[str, Any]
    ready: Path
    second: Path
    second_outcome: dict[str, Any]


def settings() -> Settings:
    """Of the clone in which this process is."""
    return read_settings()


def executed_stages() -> Counter[str]:
    """Every execution of a stage that a flow ever noted: its child runs in MLflow."""
    mlflow = client(settings().tracking_uri)
    runs = mlflow.search_runs([experiment_id(settings())], max_results=1000)
    return Counter(run.data.tags["stage"] for run in runs if "stage" in run.data.tags)


def flow_runs(flow: str) -> list[Any]:
    """The newest first."""
    mlflow = client(settings().tracking_uri)
    return list(mlflow.search_runs([experiment_id(settings())], f"tags.flow = '{flow}'"))


def entries() -> list[ledger.Entry]:
    return ledger.read(settings().ledger)


def stored_vectors(clone: Path) -> int:
    with sqlite3.connect(clone / ".tandem/vectors.sqlite") as connection:
        found = connection.execute("SELECT count(*) FROM vectors").fetchone()[0]
    connection.close()
    return int(found)
