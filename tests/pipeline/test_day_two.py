import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from looking import World, entries, executed_stages, settings, stored_vectors

from flows import ledger, registry
from flows.cli import run
from tasks.records import folder_digest, read_json, read_jsonl

Copy = Callable[[Path], Path]
QUESTION = "How many days of holiday do bakers have?"


def printed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    assert run([*words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def embedded(clone: Path) -> set[str]:
    return {record["embedded"] for record in read_jsonl(clone / "data/chunks/passages.jsonl")}


def test_a_refresh_embeds_only_what_changed_trains_nothing_and_promotes(world: World, copy: Copy) -> None:
    clone = copy(world.second)
    new = embedded(clone) - embedded(world.first)
    assert 4 <= len(new) <= 6  # two changed sections and two or more of the new page
    assert read_json(clone / "data/metrics/index.json")["embedded"] == len(new)
    assert stored_vectors(clone) == stored_vectors(world.first) + len(new)
    assert {"examples", "adapter", "models"}.isdisjoint(executed_stages())
    assert folder_digest(clone / "data/adapter") == folder_digest(world.first / "data/adapter")
    assert (world.second_outcome["outcome"], world.second_outcome["number"]) == ("promoted", 2)
    assert [entry.version for entry in entries()] == [1, 2]
    assert registry.champion_version(settings()) == 2


def test_each_release_answers_from_the_documents_that_it_had(
    world: World, copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(world.second)
    old = printed(capsys, "ask", QUESTION, "--release", "1")
    new = printed(capsys, "ask", QUESTION)
    assert (old["number"], new["number"]) == (1, 2)
    assert "29 days" in old["sources"][0]["passage"]
    assert "31 days" in new["sources"][0]["passage"]


def test_after_a_refresh_the_plan_says_how_far_the_adapter_lags_behind(
    world: World, copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(world.second)
    plan = printed(capsys, "plan")
    assert plan["adapter_lag"] == 4  # two pages changed, one came, one went
    assert {"examples"} <= plan["stale"].keys() | set(plan["after"])


def test_the_difference_of_two_releases_names_the_pages(world: World, copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    copy(world.second)
    found = printed(capsys, "diff", "1", "2")
    assert found["documents"] == {
        "changed": ["delivery/van", "staff/leave"],
        "added": ["delivery/market-stall"],
        "removed": ["shop/returns"],
        "renamed": {},
    }
    assert found["content"][0] == "corpus: other content, still 10 documents"
    assert found["passages"]["from"] + found["passages"]["added"] - found["passages"]["removed"] == found["passages"]["to"]
    assert found["passages"]["added"] >= 4
    assert found["adapter"]["from"] == found["adapter"]["to"] and found["adapter"]["to"]["came_with"] == 1
    assert found["adapter"]["to"]["documents"] >= 3 and found["adapter"]["to"]["questions"] >= 3
    assert set(found["metrics"]) == {"prompt", "rag", "lora", "rag+lora"}
    assert found["metrics"]["rag"]["primary"]["to"].keys() == {"mean", "low", "high", "n"}
    assert found["questions"]["from"] >= 3 and found["answers"]["asked_of_both"] >= 3


def test_the_history_is_a_chain_in_which_one_changed_byte_is_found(
    world: World, copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = copy(world.second)
    history = printed(capsys, "history")
    assert [entry["sequence"] for entry in history] == [1, 2]
    assert history[1]["previous"] == ledger.file_sha256(entries()[0])
    path = clone / ".tandem/ledger/000001.json"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b'"promote"', b'"promotE"'))
    said = printed(capsys, "ask", QUESTION, code=1)["error"]
    assert "000001.json" in said and "is damaged" in said
    assert run(["release"]) == 1


def test_a_rollback_brings_the_old_documents_back_and_what_was_left_stays_withdrawn(
    world: World, copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(world.second)
    done = printed(capsys, "rollback", "--reason", "the holidays of day two were wrong")
    assert (done["outcome"], done["number"], done["sequence"]) == ("rolled back", 1, 3)
    assert entries()[2].release == entries()[0].release and entries()[2].version == 1
    assert registry.champion_version(settings()) == 1
    assert "29 days" in printed(capsys, "ask", QUESTION)["sources"][0]["passage"]
    refused = printed(capsys, "refresh", code=3)
    assert "was rolled back from" in refused["reasons"][0] and refused["number"] == 1
    assert registry.champion_version(settings()) == 1
    assert run(["rollback", "--to", "2", "--reason", "they were right"]) == 0
    assert registry.champion_version(settings()) == 2


@pytest.mark.parametrize("words", [["--to", "9", "--reason", "x"], ["--to", "2", "--reason", "x"], ["--reason", " "]])
def test_a_rollback_without_a_reason_or_a_place_to_go_is_bad_usage(world: World, copy: Copy, words: list[str]) -> None:
    copy(world.second)
    assert run(["rollback", *words]) == 2
    assert len(entries()) == 2


def test_doctor_finds_nothing_then_each_thing_that_was_broken_and_mends_what_it_says(
    world: World, copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = copy(world.second)
    assert printed(capsys, "doctor") == {"mended": [], "findings": [], "notes": []}

    weights = next((clone / ".tandem/store/objects").glob("*/adapter_model.safetensors"))
    flip_a_byte(weights)
    drop_the_tag_of_release_1(clone)
    registry.client(settings().tracking_uri).set_registered_model_alias("assistant", "champion", "1")

    found = printed(capsys, "doctor", code=1)["findings"]
    said = [f"{finding['where']}: {finding['what']}" for finding in found]
    assert any("adapter_model.safetensors: expected sha256" in line for line in said), said
    assert any("release 1" in line and "no version tagged" in line for line in said), said
    assert any("alias champion stands at version 1, live is release 2" in line for line in said), said
    assert all(finding["mend"] for finding in found)

    mended = printed(capsys, "doctor", "--mend", code=1)
    assert "release 1: version " in mended["mended"][0] and mended["mended"][1] == "alias champion moved to version 2"
    assert {finding["what"].split(":")[0] for finding in mended["findings"]} == {"adapter"}
    assert run(["ask", QUESTION]) == 1  # never with the damaged adapter
    assert "tandem refresh" in mended["findings"][-1]["mend"]
    assert run(["refresh"]) == 0 and run(["doctor"]) == 0 and len(entries()) == 2


def test_an_index_that_is_gone_is_written_again_for_every_release(
    world: World, copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    """Old ones out of DVC's cache, which has the passages of each release."""
    clone = copy(world.second)
    shutil.rmtree(clone / ".tandem/index")
    found = printed(capsys, "doctor", code=1)["findings"]
    assert {finding["mend"] for finding in found} == {"tandem doctor --mend"} and len(found) == 2
    mended = printed(capsys, "doctor", "--mend")["mended"]
    assert [line.partition(":")[2] for line in mended] == [" its rows written again, from the passages in DVC's cache"] * 2
    assert "29 days" in printed(capsys, "ask", QUESTION, "--release", "1")["sources"][0]["passage"]
    assert printed(capsys, "refresh")["outcome"] == "unchanged"


@pytest.mark.slow
def test_a_registry_whose_database_is_gone_is_made_again_by_the_next_flow(world: World, copy: Copy) -> None:
    clone = copy(world.second)
    (clone / ".tandem/mlflow.db").unlink()
    done = tiny.tandem(clone, "refresh", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcome"] == "unchanged"
    assert "release 1 registered again, as version 1; release 2 registered again, as version 2" in done.stderr
    assert tiny.tandem(clone, "doctor").returncode == 0


def test_a_refresh_judges_the_live_adapter_not_one_that_was_left_in_the_workspace(
    world: World, copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    """A retrain that was refused, or killed, leaves its adapter there; dvc.lock may still be that of the release."""
    clone = copy(world.second)
    live = folder_digest(clone / "data/adapter")
    spoil(clone / "data/adapter")
    assert printed(capsys, "refresh")["outcome"] == "unchanged"
    assert folder_digest(clone / "data/adapter") == live


@pytest.mark.slow
def test_an_adapter_that_was_made_elsewhere_and_promoted_stays_live_over_a_refresh(
    world: World, copy: Copy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DVC never saw it: it comes out of the store."""
    clone = copy(world.ready)
    shutil.copytree(clone / "data/adapter", tmp_path / "elsewhere")
    spoil(tmp_path / "elsewhere")
    assert printed(capsys, "release", "--adapter", str(tmp_path / "elsewhere"))["outcome"] == "promoted"
    assert folder_digest(clone / "data/adapter") != folder_digest(tmp_path / "elsewhere")
    assert printed(capsys, "refresh")["outcome"] == "unchanged"
    assert folder_digest(clone / "data/adapter") == folder_digest(tmp_path / "elsewhere")


def spoil(adapter: Path) -> None:
    """Other weights of the same shapes."""
    from safetensors.numpy import load_file, save_file

    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    path.chmod(0o600)
    save_file({name: weight * 0.5 for name, weight in weights.items()}, path, metadata={"format": "pt"})


def test_a_flow_run_whose_process_is_gone_is_shown_as_crashed(world: World, copy: Copy) -> None:
    """Killed together with its worker, so that nobody told Prefect."""
    from prefect.client.orchestration import get_client
    from prefect.states import Running

    from flows import tracking
    from flows.refresh import refresh

    copy(world.second)
    with get_client(sync_client=True) as client:
        left = client.create_flow_run(refresh, state=Running())
        with tracking.flow_run(settings(), "refresh", {tracking.FLOW_RUN: str(left.id)}) as dead:
            tracking.client(settings().tracking_uri).set_tag(dead, tracking.PID, str(2**22 + 1))
            assert run(["refresh"]) == 0
        assert client.read_flow_run(left.id).state_type == "CRASHED"


def flip_a_byte(path: Path) -> None:
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def drop_the_tag_of_release_1(clone: Path) -> None:
    from flows.opening import manifest_text
    from tasks.manifest import load_release
    from tasks.tables import connect

    pinned = load_release(manifest_text(settings(), str(entries()[0].release))).index
    connect(settings().index_uri).open_table(pinned.table).tags.delete(pinned.tag)


def test_an_alias_that_was_moved_to_a_version_of_no_entry_stops_every_flow_until_it_is_mended(world: World, copy: Copy) -> None:
    copy(world.second)
    mlflow = registry.client(settings().tracking_uri)
    version = mlflow.get_model_version("assistant", "1")
    foreign = mlflow.create_model_version("assistant", version.source, version.run_id)
    mlflow.set_registered_model_alias("assistant", "champion", foreign.version)
    assert run(["release"]) == 1
    assert registry.champion_version(settings()) == int(foreign.version)
    assert run(["doctor", "--mend"]) == 0
    assert registry.champion_version(settings()) == 2


def test_tandem_as_a_person_types_it(world: World, copy: Copy) -> None:
    clone = copy(world.second)
    status = tiny.tandem(clone, "status")
    assert status.returncode == 0 and status.stdout.startswith("release 2 ("), status.stderr
    answer = tiny.tandem(clone, "ask", QUESTION, "--arm", "rag", "--json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["sources"][0]["page"] == "staff/leave"
