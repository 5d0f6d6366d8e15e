"""What a flow run is called in Prefect, and what it is found by."""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Named(NamedTuple):
    id: str
    name: str


def name_flow_run(project: str, outcome: str, tags: Mapping[str, str]) -> Named | None:
    """The outcome into the name and the tags of the run that this is part of; None where it is part of none."""
    from prefect.client.orchestration import get_client
    from prefect.runtime import flow_run

    if flow_run.id is None:
        return None
    name = f"{flow_run.flow_name}: {outcome}, {time.strftime('%Y-%m-%d %H:%M')}"
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, name=name, tags=labels(project, flow_run.tags or [], tags))
    return Named(str(flow_run.id), name)


def labels(project: str, given: Sequence[str], tags: Mapping[str, str]) -> list[str]:
    """What a Prefect run is found by: the project, what its deployment gave it, how it ended, the release that it was about."""
    release = [f"release {tags['release']}"] if "release" in tags else []
    return sorted({project, *given, tags["outcome"], *release})
