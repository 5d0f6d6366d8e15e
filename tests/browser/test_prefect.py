"""Prefect's UI, as somebody sees it who asks what ran and why it ended so."""

from collections.abc import Callable
from typing import Any

from looking_at import Page
from running import Servers

Look = Callable[[str], Page]


def runs(story: Servers) -> dict[str, dict[str, Any]]:
    ended = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED", "FAILED"]}}}}
    return {each["name"].split(",")[0]: each for each in story.api("/flow_runs/filter", ended)}


def artifact(story: Servers, key: str) -> str:
    run = runs(story)["release: release 1 promoted"]["id"]
    wanted = {"artifacts": {"flow_run_id": {"any_": [run]}, "key": {"any_": [key]}}}
    return f"{story.prefect}/artifacts/artifact/{story.api('/artifacts/filter', wanted)[0]['id']}"


def test_the_list_of_runs_tells_how_they_ended(story: Servers, page: Look) -> None:
    text = page(f"{story.prefect}/runs").text

    assert "ingest: 10 documents, 20" in text
    assert "release: release 1 promoted, 20" in text
    assert "Promoted" in text
    assert "rollback" in text
    assert "Failed" in text


def test_runs_are_found_by_tags(story: Servers) -> None:
    tags = {name: set(run["tags"]) for name, run in runs(story).items()}

    assert {"tandem", "promoted", "release 1"} <= tags["release: release 1 promoted"]
    assert {"tandem", "ingested"} <= tags["ingest: 10 documents"]


def test_a_run_shows_its_log(story: Servers, page: Look) -> None:
    text = page(f"{story.prefect}/runs/flow-run/{runs(story)['rollback']['id']}").text

    assert "Work Pool cpu" in text
    assert "release 1 is the only one that ever was live; there is nothing to go back to" in text


def test_the_deployments_say_when_they_run(story: Servers, page: Look) -> None:
    text = page(f"{story.prefect}/deployments").text

    assert all(name in text for name in ("ingest", "refresh", "retrain", "release", "rollback"))
    assert "At 05:00 AM every day" in text


def test_the_arms_are_a_table(story: Servers, page: Look) -> None:
    text = page(artifact(story, "arms")).text

    assert "The four arms on the test questions" in text
    assert "primary 95 % interval" in text
    assert "rag+lora (to be served)" in text


def test_the_verdict_gives_its_reasons(story: Servers, page: Look) -> None:
    text = page(artifact(story, "verdict")).text

    assert "Accepted: release" in text
    assert "the cheapest arm proven to be within" in text


def test_the_artifacts_have_their_names(story: Servers, page: Look) -> None:
    text = page(f"{story.prefect}/artifacts").text

    assert all(key in text for key in ("arms", "verdict", "mlflow-run"))
