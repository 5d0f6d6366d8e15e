"""Whom a flow asks, and whether anybody could answer."""

from dataclasses import replace
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from workspace import write_workspace

from flows.checks import check_approval
from flows.run_names import labels
from flows.settings import Settings
from tasks.errors import InputError


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    root = tmp_path / "clone"
    root.mkdir()
    return write_workspace(root)


def test_an_approval_that_nobody_could_give_is_bad_usage_before_anything_runs(settings: Settings) -> None:
    asking = replace(settings, approval=True)
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        with pytest.raises(InputError, match=r"nobody could answer.*PREFECT_API_URL=http://127.0.0.1:4200/api"):
            check_approval(asking)
        check_approval(settings)
    with temporary_settings(updates={PREFECT_API_URL: "http://127.0.0.1:4200/api"}):
        check_approval(asking)


def test_a_run_is_found_by_project_outcome_release_and_what_its_deployment_gave_it() -> None:
    assert labels("tandem", ["refresh"], {"outcome": "promoted", "release": "2"}) == [
        "promoted",
        "refresh",
        "release 2",
        "tandem",
    ]
    assert labels("tandem", ["tandem"], {"outcome": "refused", "why": "..."}) == ["refused", "tandem"]
