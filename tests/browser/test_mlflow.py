"""MLflow's UI, as somebody sees it who compares runs and asks what a release is."""

import json
import urllib.request
from collections.abc import Callable
from typing import Any

from looking_at import Page
from running import Servers

from flows.addresses import TRAINING_VIEW

Look = Callable[[str], Page]


def post(story: Servers, path: str, body: Any) -> Any:
    address = f"{story.mlflow}/api/2.0/mlflow/{path}"
    request = urllib.request.Request(address, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())


def experiment(story: Servers) -> str:
    found = post(story, "experiments/search", {"max_results": 10})["experiments"]
    return next(str(each["experiment_id"]) for each in found if each["name"] == "tandem")


def run_address(story: Servers, name: str, below: str = "") -> str:
    number = experiment(story)
    found = post(story, "runs/search", {"experiment_ids": [number], "filter": f"attributes.run_name LIKE '{name}%'"})["runs"]
    return f"{story.mlflow}/#/experiments/{number}/runs/{found[0]['info']['run_id']}{below}?{TRAINING_VIEW}"


def test_the_list_of_runs_tells_how_they_ended(story: Servers, page: Look) -> None:
    text = page(f"{story.mlflow}/#/experiments/{experiment(story)}/runs?{TRAINING_VIEW}").text

    assert "release: release 1 promoted, 20" in text
    assert "ingest: 10 documents, 20" in text
    assert "Releases are versions of assistant" in text


def test_a_run_shows_its_verdict_tags_and_metrics(story: Servers, page: Look) -> None:
    text = page(run_address(story, "release: release 1")).text

    assert "Accepted: release" in text
    assert "outcome : promoted" in text
    assert "rag_and_lora.primary" in text
    assert "adapter" in text  # a child run


def test_a_stage_shows_its_curve_and_inputs(story: Servers, page: Look) -> None:
    text = page(run_address(story, "adapter")).text

    assert "validation_loss" in text
    assert "data/examples" in text
    assert "Parent run release: release 1 promoted" in text


def test_the_answers_stand_side_by_side(story: Servers, page: Look) -> None:
    text = page(run_address(story, "release: release 1", "/artifacts/answers.json")).text

    assert "question served reference right prompt rag lora" in text
    assert "How old is the flour mill?" in text


def test_runs_are_compared_question_by_question_on_what_the_served_arm_says(story: Servers, page: Look) -> None:
    query = "compareRunsMode=ARTIFACT&searchFilter=attributes.run_name%20LIKE%20%27%25promoted%25%27"
    text = page(f"{story.mlflow}/#/experiments/{experiment(story)}/runs?{query}&{TRAINING_VIEW}").text

    assert "Table: answers.json" in text
    assert "Compare: served" in text
    assert "How old is the flour mill?" in text


def test_the_report_of_a_run_is_a_page_among_its_artifacts(story: Servers, page: Look) -> None:
    seen = page(run_address(story, "release: release 1", "/artifacts/report.html"))

    assert "report.html" in seen.text
    assert "<iframe" in seen.source


def test_the_plots_are_there(story: Servers, page: Look) -> None:
    seen = page(run_address(story, "release: release 1", "/artifacts/plots/arms.png"))

    assert "plots/arms.png" in seen.text
    assert "<img" in seen.source


def test_the_model_shows_versions_alias_and_tags(story: Servers, page: Look) -> None:
    text = page(f"{story.mlflow}/#/models/assistant?{TRAINING_VIEW}").text

    assert "One version is one release" in text
    assert "Version 1" in text
    assert "@ champion" in text
    assert "corpus : 10 documents" in text
    assert "number : 1" in text


def test_a_version_says_why_it_is_live(story: Servers, page: Look) -> None:
    text = page(f"{story.mlflow}/#/models/assistant/versions/1?{TRAINING_VIEW}").text

    assert "the cheapest arm proven to be within" in text
    assert "release: release 1 promoted" in text  # its source run
