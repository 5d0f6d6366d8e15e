"""Flow runs that died together with their worker: nobody else tells Prefect, which would show them as Running for ever."""

from collections.abc import Callable
from uuid import UUID


def mark_crashed(flow_run_id: str | None, say: Callable[[str], None]) -> None:
    """As far as the server lets us: what Prefect shows decides nothing. Outside a flow run there is no server to tell."""
    from prefect.client.orchestration import get_client
    from prefect.runtime import flow_run
    from prefect.states import Crashed

    if flow_run_id is None or flow_run.id is None:
        return
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run_id)).state
            if state is not None and not state.is_final():
                message = "Its process is gone; the next flow run in the same workspace found that out."
                client.set_flow_run_state(UUID(flow_run_id), Crashed(message=message), force=True)
    except Exception as error:  # another server by now, a run that was deleted, no answer
        say(f"Prefect could not be told that its flow run {flow_run_id} died: {error}")
