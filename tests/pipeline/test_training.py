"""The flows that train: both on day two, whose corpus and questions the live adapter has not seen."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from looking import World, entries, executed_stages, flow_runs, settings

from flows import registry, tracking
from flows.cli import run
from flows.retrain import retrain
from tasks.records import folder_digest

Copy = Callable[[Path], Path]


def test_a_retrain_trains_on_what_is_there_and_its_adapter_is_judged(world: World, copy: Copy) -> None:
    clone = copy(world.second)
    before, live = executed_stages(), folder_digest(clone / "data/adapter")
    outcome = dict(retrain())
    assert executed_stages() - before == {"examples": 1, "adapter": 1, "evaluate": 1}
    assert folder_digest(clone / "data/adapter") != live
    # the corpus is that of release 2, so the new adapter would have to be better, and random models are not
    assert (outcome["outcome"], outcome["number"]) == ("refused", 2), outcome
    assert "Against the champion" in " ".join(outcome["reasons"])
    assert [entry.action for entry in entries()] == ["promote", "promote", "refuse"]
    assert entries()[2].candidate == outcome["release"] != entries()[1].release
    assert {"champion report", "champion answers"} <= entries()[2].evidence.keys()
    assert registry.champion_version(settings()) == 2
    assert run(["refresh"]) == 0 and folder_digest(clone / "data/adapter") == live  # the refused one does not slip in


def test_a_retrain_with_too_few_new_pairs_trains_nothing(world: World, copy: Copy) -> None:
    copy(world.second)
    before = executed_stages()
    outcome = dict(retrain(min_new_pairs=1000))
    assert (outcome["outcome"], outcome["number"]) == ("unchanged", 2)
    assert "1000 are wanted before it retrains" in outcome["reasons"][0]
    assert executed_stages() == before and flow_runs("retrain")[0].data.tags["outcome"] == "unchanged"


@pytest.mark.slow
def test_a_sweep_compares_adapters_and_changes_nothing(world: World, copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    clone = copy(world.first)
    before = {name: folder_digest(clone / name) for name in ("params", "data/adapter")}
    assert run(["sweep", "--json"]) == 0
    found: Any = json.loads(capsys.readouterr().out)

    tried = [trial["values"] for trial in found["trials"]]
    assert {} in tried and len(tried) >= 2 and all(trial["parameters"] > 0 for trial in found["trials"])
    assert found["winner"] in tried and found["reason"]
    assert {name: folder_digest(clone / name) for name in before} == before
    (run_of_sweep,) = flow_runs("sweep")
    assert run_of_sweep.data.tags["why"] == found["reason"]
    children = tracking.client(settings().tracking_uri).search_runs(
        [run_of_sweep.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_of_sweep.info.run_id}'"
    )
    losses = {child.data.metrics["validation_loss_best"] for child in children if child.info.status == "FINISHED"}
    assert losses == {trial["loss"] for trial in found["trials"]}
    refused = [child for child in children if child.info.status == "FAILED"]
    assert len(refused) + len(tried) == 4 == len(children)
    assert all("diverged" in child.data.tags["error"] for child in refused)  # those with an absurd learning rate


@pytest.mark.slow
def test_a_study_draws_the_curve_compares_base_models_and_changes_nothing(
    world: World, copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = copy(world.first)
    shutil.copytree(clone / "tiny/base", clone / "tiny/other")
    bases = [{"source": "folder", "id": "tiny/other", "revision": ""}]
    tiny.change_params(clone, "study.yaml", {"shares": [0.5, 1.0], "bases": bases, "questions": 6})
    before = {name: folder_digest(clone / name) for name in ("params", "data/adapter", "data/evaluation", "data/examples")}
    assert run(["study", "--json"]) == 0
    found: Any = json.loads(capsys.readouterr().out)

    assert [(point["base"], point["share"]) for point in found["points"]] == [
        ("folder", 0.5),
        ("folder", 1.0),
        ("tiny/other", 1.0),
    ]
    assert found["points"][0]["pairs"] < found["points"][1]["pairs"] == found["points"][2]["pairs"]
    assert found["points"][1]["arms"] == found["points"][2]["arms"]  # the very same weights
    assert len(found["advice"]) == 4 and found["questions"] == 6
    assert {name: folder_digest(clone / name) for name in before} == before
    (run_of_study,) = flow_runs("study")
    client = tracking.client(settings().tracking_uri)
    children = client.search_runs([run_of_study.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_of_study.info.run_id}'")
    assert sorted(child.data.metrics["share"] for child in children if "share" in child.data.metrics) == [0.5, 1.0, 1.0]
    curve = client.get_metric_history(run_of_study.info.run_id, "lora.primary")
    assert [point.step for point in curve] == [point["pairs"] for point in found["points"][:2]]
    assert run(["report", "1"]) == 0
    capsys.readouterr()
    assert "What would help" in (clone / ".tandem/reports/release-1.html").read_text(encoding="utf-8")


def test_a_release_trains_what_is_stale_and_promotes_it(world: World, copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    """After new documents by one command: nobody typed `dvc repro`."""
    clone = copy(world.first)
    day = world.folder / "day-2"
    assert run(["ingest", "--documents", str(day / "documents"), "--questions", str(day / "questions.jsonl")]) == 0
    before, live = executed_stages(), folder_digest(clone / "data/adapter")
    capsys.readouterr()
    assert run(["release", "--json"]) == 0
    outcome: Any = json.loads(capsys.readouterr().out)
    ran = ["chunks", "retriever", "index", "retrieval", "examples", "adapter", "evaluate"]
    assert executed_stages() - before == dict.fromkeys(ran, 1)
    assert (outcome["outcome"], outcome["number"]) == ("promoted", 2)
    assert folder_digest(clone / "data/adapter") != live
    assert "Data and pipelines are up to date." in tiny.dvc(clone, "repro").stdout
