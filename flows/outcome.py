"""How a flow ended that may change what is live."""

from dataclasses import dataclass
from typing import Any, cast


@dataclass(frozen=True)
class Outcome:
    """`outcome`: promoted | refused | undecided (refused, as the questions are too few to tell) | unchanged."""

    outcome: str
    number: int | None
    release: str | None
    arm: str | None
    reasons: list[str]
    sequence: int

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def as_state(self) -> dict[str, Any]:
        """Completed, under the outcome's name: a list of runs shows it, and prefect.flow-run.Refused is an event to act upon.
        Prefect hands the data to whoever called the flow: `to_json`, hence the type."""
        from prefect.states import Completed

        return cast(
            dict[str, Any], Completed(name=self.outcome.capitalize(), message=" ".join(self.reasons), data=self.to_json())
        )
