import os
from pathlib import Path

import pytest
import tiny
from workspace import settings_of

from flows import planning
from flows.planning import next_command, plan
from flows.settings import Settings, child_environment


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for name in ("base", "embedder"):
        (tmp_path / name).mkdir()
    made = settings_of(tiny.make_clone(tmp_path / "clone", tmp_path / "base", tmp_path / "embedder"))
    os.environ.update(child_environment(made))
    return made


def test_before_there_is_a_corpus_the_next_step_is_to_ingest_one(settings: Settings) -> None:
    assert next_command(settings, {}, 0).startswith("tandem ingest")


@pytest.mark.parametrize(
    ("stale", "lag", "command"),
    [
        ([], 0, "nothing to do"),
        (["documents"], 0, "tandem refresh"),
        (["documents", "examples"], 3, "tandem refresh"),
        (["examples"], 3, "tandem retrain"),  # after a refresh: another one would find nothing to do
        (["examples"], 0, "tandem retrain"),  # after a refresh with new pairs on the same pages
        (["retrieval", "examples", "evaluate"], 0, "tandem retrain"),
        (["models", "index"], 0, "tandem release"),
    ],
)
def test_with_a_release_the_next_step_is_the_cheapest_that_helps(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, stale: list[str], lag: int, command: str
) -> None:
    (settings.root / "data").mkdir(exist_ok=True)
    (settings.root / "data/raw.dvc").write_text("outs: []\n")
    monkeypatch.setattr(planning.ledger, "live", lambda entries: "a release")
    assert next_command(settings, {stage: ["modified"] for stage in stale}, lag) == command


def test_a_refresh_does_not_tune_an_embedder_so_that_it_is_no_next_step_for_that(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (settings.root / "data").mkdir(exist_ok=True)
    (settings.root / "data/raw.dvc").write_text("outs: []\n")
    monkeypatch.setattr(planning.ledger, "live", lambda entries: "a release")
    assert next_command(settings, {"retriever": ["modified"]}, 0) == "tandem refresh"  # switched off it costs nothing
    tiny.change_params(settings.root, "retriever.yaml", {"sides": "both"})
    assert next_command(settings, {"retriever": ["modified"]}, 0) == "tandem retrain"


def test_a_plan_tells_what_never_ran_and_that_a_release_is_next(settings: Settings) -> None:
    tiny.write_corpus(settings.root / "data/raw")
    (settings.root / "data/raw.dvc").write_text("outs: []\n")
    made = plan(settings)
    assert len(made["stale"]) == 10 and made["after"] == []
    assert (made["adapter_lag"], made["next"]) == (0, "tandem release")


def test_a_change_is_followed_downstream(settings: Settings) -> None:
    tiny.write_corpus(settings.root / "data/raw")
    done = tiny.dvc(settings.root, "repro", "chunks", "questions")
    assert done.returncode == 0, done.stdout + done.stderr
    tiny.change_params(settings.root, "chunks.yaml", {"max_words": 61})
    made = plan(settings)
    assert made["stale"]["chunks"] == ["params/chunks.yaml: max_words modified"]
    assert "documents" not in made["stale"] and "questions" not in made["stale"]
    assert set(made["stale"]) | set(made["after"]) == {
        "models",
        "chunks",
        "retriever",
        "index",
        "retrieval",
        "examples",
        "adapter",
        "evaluate",
    }


def test_without_a_release_no_adapter_lags(settings: Settings) -> None:
    assert planning.adapter_lag(settings) == 0
