"""Deployments, schedules, a worker and the question to a person, with a real Prefect server."""

import json
import subprocess
import sys
from typing import Any

import tiny
import yaml
from running import ENDED, Servers, wait_for

FLOWS = {each["name"] for each in yaml.safe_load((tiny.ROOT / "infra/prefect.yaml").read_text())["deployments"]}


def test_the_file_deploys_every_flow(servers: Servers) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "infra/prefect.yaml"]
    environment = servers.environment | {"PREFECT_API_URL": f"{servers.prefect}/api"}
    done = subprocess.run(command, cwd=servers.clone, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    found = {each["name"]: each for each in servers.api("/deployments/filter", {})}
    assert found.keys() == FLOWS >= {"ingest", "refresh", "retrain", "train", "release", "rollback"}
    for name, each in found.items():
        assert each["entrypoint"] == f"flows/{name}.py:{name}"
        assert each["work_pool_name"] == ("gpu" if name == "train" else "cpu")
        assert each["global_concurrency_limit"]["limit"] == 1
        assert each["concurrency_options"]["collision_strategy"] == "ENQUEUE"
        assert each["description"]
        assert "tandem" in each["tags"]
    schedules = {name: [(s["slug"], s["active"]) for s in each["schedules"]] for name, each in found.items() if each["schedules"]}
    assert schedules == {"refresh": [("daily", True)], "retrain": [("weekly", True)]}


def test_a_schedule_makes_runs(servers: Servers) -> None:
    """It does not where the server's scheduler fails, which only its log would tell: SQLAlchemy 2.1 under Prefect 3.8."""
    due = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}, "tags": {"all_": ["auto-scheduled"]}}}

    def pools() -> set[str]:
        return {each["work_pool_name"] for each in servers.api("/flow_runs/filter", due)}

    wait_for(lambda: pools() == {"cpu"}, "a scheduled run", lambda: servers.log("prefect"))


def test_a_worker_runs_the_clones_code_and_says_what_is_wrong(servers: Servers) -> None:
    run = servers.until(servers.start("rollback", reason="a test"), *ENDED)

    assert run["state_type"] == "FAILED"
    assert "release 1 is the only one that ever was live" in run["state"]["message"]


def test_a_promotion_waits_for_a_person(servers: Servers) -> None:
    """Day two by deployments: ingest, a refresh that a person turns down, another that is approved."""
    day = servers.days[2]
    taken = servers.until(
        servers.start("ingest", documents=[str(day / "documents")], questions=str(day / "questions.jsonl")), *ENDED
    )
    assert taken["state_type"] == "COMPLETED", servers.log("worker-cpu")
    assert taken["name"].startswith("ingest: 10 documents, 20")

    refused = answered(servers, approve=False, reason="the prices look wrong")
    assert refused["state_name"] == "Refused"
    assert "a person did not approve it: the prices look wrong" in refused["state"]["message"]
    assert live(servers)["number"] == 1

    promoted = answered(servers, approve=True, reason="checked")
    assert promoted["state_name"] == "Promoted", servers.log("worker-cpu")
    assert promoted["name"].startswith("refresh: release 2 promoted, 20")
    assert live(servers)["number"] == 2
    found = servers.api("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [promoted["id"]]}}})
    assert {each["key"] for each in found} == {"arms", "verdict", "mlflow-run"}


def answered(servers: Servers, **answer: object) -> dict[str, Any]:
    run = servers.start("refresh")
    servers.until(run, "PAUSED", *ENDED)
    servers.api(f"/flow_runs/{run}/resume", {"run_input": answer})
    return servers.until(run, *ENDED)


def live(servers: Servers) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "status", "--json"],
        cwd=servers.clone, env=servers.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout)["live"])
