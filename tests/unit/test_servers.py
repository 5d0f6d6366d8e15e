"""Addresses, ports and the deployments file: all that can be wrong with `make up` before anything is started."""

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import faults, tracking
from flows.addresses import mlflow_address, mlflow_run, port, prefect_address
from flows.servers import DEPLOYMENTS, check, pools, servers, where
from flows.settings import Settings, read_settings
from tasks.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return read_settings({"TANDEM_HOME": str(tmp_path)})


def settings_with(uri: str) -> Settings:
    return read_settings({"MLFLOW_TRACKING_URI": uri})


@pytest.mark.parametrize("value", ["", "0", "65536", "http", "-1", "4200 ", "४२"])
def test_what_is_no_port_is_refused(value: str) -> None:
    with pytest.raises(InputError, match="is not a port; give a number such as 4200"):
        port("PREFECT_PORT", 4200, {"PREFECT_PORT": value})


def test_the_addresses_are_those_of_shared_servers_where_the_environment_names_them(settings: Settings) -> None:
    assert mlflow_address(settings, {}) == "http://127.0.0.1:5000"
    assert mlflow_address(settings, {"MLFLOW_PORT": "5001"}) == "http://127.0.0.1:5001"
    assert mlflow_address(settings_with("https://mlflow.example.org/"), {}) == "https://mlflow.example.org"
    assert prefect_address({}) == "http://127.0.0.1:4200"
    assert prefect_address({"PREFECT_API_URL": "https://prefect.example.org/api"}) == "https://prefect.example.org"


def test_a_password_in_an_address_stands_in_no_message_and_no_link(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "https://ada:s3cr3t@example.org/api"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", secret)
    monkeypatch.setenv("PREFECT_API_URL", secret)
    assert mlflow_address(settings_with(secret), {}) == secret, "whoever calls it needs it"
    said = [
        mlflow_run(settings_with(secret), "1", "a run"), where(settings_with(secret)), faults.servers(),
        str(tracking.database_error(secret, ValueError("no schema"))),
    ]  # fmt: skip
    with pytest.raises(InputError, match="known: sqlite") as refused:
        settings_with(secret.replace("https", "ftp"))
    for text in (*said, str(refused.value)):
        assert "//example.org" in text and "s3cr3t" not in text, text


def test_a_shared_tracking_server_is_not_started_again(settings: Settings) -> None:
    assert [each.name for each in servers(settings, {})] == ["prefect", "mlflow"]
    assert [each.name for each in servers(settings_with("https://mlflow.example.org"), {})] == ["prefect"]


def test_two_servers_need_two_ports(settings: Settings) -> None:
    environment = {"MLFLOW_PORT": "4999", "PREFECT_PORT": "4999"}
    with pytest.raises(InputError, match="MLFLOW_PORT and PREFECT_PORT are both 4999"):
        check(servers(settings, environment), environment)


@pytest.mark.parametrize("variable", ["MLFLOW_HOST", "PREFECT_SERVER_API_HOST"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org"])
def test_an_address_for_others_is_refused_as_nobody_is_asked_for_a_password(settings: Settings, variable: str, host: str) -> None:
    with pytest.raises(InputError, match=f"{variable}={host}: these servers ask nobody for a password.*a proxy that asks"):
        check(servers(settings, {}), {variable: host})


def test_a_prefect_server_elsewhere_is_not_doubled(settings: Settings) -> None:
    with pytest.raises(InputError, match="names a server that runs already"):
        check(servers(settings, {}), {"PREFECT_API_URL": "https://prefect.example.org/api"})


# --- infra/prefect.yaml against the flows that it deploys


def deployments() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((ROOT / DEPLOYMENTS).read_text(encoding="utf-8"))["deployments"]
    assert found
    return found


def parameters_of(entrypoint: str) -> set[str]:
    file, name = entrypoint.split(":")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    (flow,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    return {argument.arg for argument in flow.args.args}


def test_every_flow_is_deployed_once() -> None:
    flows = {path.stem for path in (ROOT / "flows").glob("*.py") if "\n@flow(" in path.read_text(encoding="utf-8")}
    names = [each["name"] for each in deployments()]

    assert sorted(names) == sorted(flows)
    assert {each["entrypoint"] for each in deployments()} == {f"flows/{name}.py:{name}" for name in names}


def test_a_deployment_gives_only_parameters_that_its_flow_has() -> None:
    for each in deployments():
        assert each["parameters"].keys() <= parameters_of(each["entrypoint"]), each["name"]


def test_the_pools_are_those_that_the_file_names() -> None:
    assert pools(ROOT / DEPLOYMENTS) == ["cpu", "gpu"]


def test_the_file_holds_no_path_of_a_machine() -> None:
    text = (ROOT / DEPLOYMENTS).read_text(encoding="utf-8")

    assert not [word for word in text.split() if word.startswith(("/", "~", "[/"))]
