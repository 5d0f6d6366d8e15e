"""Flow `train`: the adapter stage for another machine, which hands it over (flows.handover). Promotes nothing."""

from typing import Any

from prefect import flow
from prefect.client.schemas import State
from prefect.states import Completed

from flows import handover, steps, tracking
from flows.checks import check_params
from flows.session import session
from tasks.errors import RefusedError


@flow(name="train", flow_run_name="train")
def train(snapshot: dict[str, Any], parent: str = "") -> State[Any]:
    """`parent`: the MLflow run of the flow that asks."""
    with session("train") as opened:
        tracking.belongs_to(opened.settings, opened.run_id, parent)

        def run() -> None:
            check_params(opened.settings.root / "params")
            steps.reproduce_only(opened, [handover.STAGE])

        try:
            handover.train_here(opened.settings, snapshot, run)
        except RefusedError as refusal:
            return Completed(name=handover.REFUSED, message=str(refusal), data=None)
        return Completed(name=handover.TRAINED, message="the adapter is in the DVC remote", data=None)
