"""`make up`: both UIs over this clone's state, its deployments and a worker, on this machine alone, until Ctrl-C.

`python -m flows.servers deploy` brings pools and deployments to the server that PREFECT_API_URL names; `print` says where all is.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.addresses import HOST, TRAINING_VIEW, mlflow_address, prefect_address
from flows.guard import guarded
from flows.lock import exclusive, private_folder
from flows.settings import MODEL_NAME, Settings, child_environment, prepare, read_settings, shown
from tasks.errors import InputError, TandemError

START_SECONDS = 180  # the first start makes the databases; on a busy machine that takes a minute
DEPLOYMENTS = "infra/prefect.yaml"
# Prefect keeps in memory who holds a deployment's one place: restarted beside a killed run, a server would never give it back
LEASES = {"PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem"}


@dataclass(frozen=True)
class Service:
    """A process to start. `health` is the address that answers once it is ready; None: nothing to wait for."""

    name: str
    command: list[str]
    health: str | None


@dataclass(frozen=True)
class Running:
    service: Service
    process: "subprocess.Popen[bytes]"
    log: Path


# --- What there is to start


def servers(settings: Settings, environment: Mapping[str, str]) -> list[Service]:
    """Prefect's, and MLflow's unless the settings name a shared one."""
    prefect, mlflow = prefect_address(environment), mlflow_address(settings, environment)
    found = [Service("prefect", module("prefect", "server", "start", *listen(prefect)), f"{prefect}/api/health")]
    if not settings.tracking_uri.startswith(("http://", "https://")):
        found.append(Service("mlflow", mlflow_command(settings, mlflow), f"{mlflow}/health"))
    return found


def mlflow_command(settings: Settings, address: str) -> list[str]:
    """Under gunicorn, because MLflow 3.17's default server also offers an assistant that runs shell commands on this machine."""
    store = ["--backend-store-uri", settings.tracking_uri, "--no-serve-artifacts"]
    store += ["--default-artifact-root", settings.artifacts] if settings.artifacts else []
    serve = ["--workers", "1", "--gunicorn-opts", "--threads 4 --no-control-socket"]
    return module("mlflow", "server", *listen(address), *serve, *store)


def worker(pool: str) -> Service:
    return Service(f"worker-{pool}", module("prefect", "worker", "start", "--pool", pool, "--name", f"tandem-{pool}"), None)


def module(*words: str) -> list[str]:
    return [sys.executable, "-m", *words]


def listen(address: str) -> list[str]:
    return ["--host", HOST, "--port", port_of(address)]


def port_of(address: str) -> str:
    return address.split("/")[2].rsplit(":", 1)[1]


def check(services: list[Service], environment: Mapping[str, str]) -> None:
    """Raises InputError before anything is started: an address for others, another server in charge, a port that is taken."""
    for variable in ("MLFLOW_HOST", "PREFECT_SERVER_API_HOST"):
        if environment.get(variable, HOST) not in (HOST, "localhost"):
            raise InputError(
                f"{variable}={environment[variable]}: these servers ask nobody for a password, so they listen on {HOST} only; "
                "for other people put a proxy that asks in front of them (docs/operations.md)"
            )
    if environment.get("PREFECT_API_URL"):
        raise InputError(
            f"PREFECT_API_URL={environment['PREFECT_API_URL']} names a server that runs already. Deploy there by "
            "`python -m flows.servers deploy` and start a worker, or unset it for a server of this clone's own"
        )
    ports = [port_of(str(service.health)) for service in services]
    if len(set(ports)) < len(ports):
        raise InputError(f"MLFLOW_PORT and PREFECT_PORT are both {ports[0]}; give two")
    for service, number in zip(services, ports, strict=True):
        check_free(service.name, int(number))


def check_free(name: str, number: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, number))
        except OSError as error:
            raise InputError(
                f"port {number} on {HOST} cannot be had ({error.strerror}); stop what listens there, or choose another: "
                f"make up {name.upper()}_PORT={number + 1}"
            ) from error


# --- Starting them


def start(service: Service, settings: Settings, environment: dict[str, str], guard: int) -> Running:
    log = private_folder(settings.home / "logs") / f"{service.name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            service.command, cwd=settings.root, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=file, stderr=file,
        )  # fmt: skip
    os.write(guard, f"{process.pid}\n".encode())
    return Running(service, process, log)


def wait_until_healthy(running: list[Running]) -> None:
    deadline = time.monotonic() + START_SECONDS
    for each in running:
        while each.service.health and not answers(each.service.health):
            check_alive(running)
            if time.monotonic() > deadline:
                raise TandemError(f"{each.service.name} did not answer within {START_SECONDS} s; its log: {each.log}")
            time.sleep(0.2)


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def check_alive(running: list[Running]) -> None:
    for each in running:
        if each.process.poll() is not None:
            last = "\n".join(each.log.read_text(errors="replace").splitlines()[-15:])
            raise TandemError(
                f"{each.service.name} ended by itself (exit {each.process.returncode}); the end of {each.log}:\n{last}"
            )


# --- Pools and deployments


def deploy(settings: Settings) -> None:
    """Make the work pools that are missing, then bring every deployment to what the file says."""
    make_pools(pools(settings.root / DEPLOYMENTS))
    command = module("prefect", "--no-prompt", "deploy", "--all", "--prefect-file", DEPLOYMENTS)
    done = subprocess.run(command, cwd=settings.root, text=True, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise TandemError(f"prefect deploy failed:\n{(done.stdout + done.stderr).strip()[-3000:]}")


def pools(path: Path) -> list[str]:
    import yaml

    deployments: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))["deployments"]
    return sorted({deployment["work_pool"]["name"] for deployment in deployments})


def make_pools(names: list[str]) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        for name in names:
            with suppress(ObjectAlreadyExists):
                client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))


# --- The command


def up(settings: Settings) -> None:
    """Runs until a signal ends it (KeyboardInterrupt), or a server ends by itself (TandemError)."""
    services = servers(settings, os.environ)
    check(services, os.environ)
    environment = os.environ | LEASES | child_environment(settings) | {"PREFECT_API_URL": f"{prefect_address()}/api"}
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with exclusive(settings.home / "servers.lock", what="`make up`"), guarded() as guard:
        print("starting the servers ...", flush=True)
        running = [start(service, settings, environment, guard) for service in services]
        wait_until_healthy(running)
        deployed = start(Service("deploy", module("flows.servers", "deploy"), None), settings, environment, guard)
        if deployed.process.wait():
            check_alive([deployed])
        running.append(start(worker("cpu"), settings, environment, guard))
        print(where(settings), flush=True)
        while True:
            check_alive(running)
            time.sleep(0.5)


def where(settings: Settings) -> str:
    """What a person opens, and what is to be seen there."""
    mlflow, prefect = shown(mlflow_address(settings)), shown(prefect_address())
    return f"""\
Prefect  {prefect}/runs
         every flow run with its stages, logs, and the artifacts `arms` and `verdict`; start one under Deployments
MLflow   {mlflow}/#/experiments?{TRAINING_VIEW}
         runs of the project {settings.project}: params, metrics, curves, plots, answers side by side
         {mlflow}/#/models/{MODEL_NAME}?{TRAINING_VIEW}
         every release as a version; the alias champion is live
Logs     {settings.home / "logs"}
A worker runs the pool cpu. Training on another machine: docs/operations.md, "A machine that trains"
Ctrl-C ends all of it."""


def main() -> None:
    mode = sys.argv[1] if len(sys.argv) > 1 else "up"
    try:
        settings = read_settings()
        if mode == "up":
            up(settings)
        elif mode == "deploy":
            prepare(settings)
            deploy(settings)
        elif mode == "print":
            print(where(settings))
        else:
            raise InputError(f"flows.servers knows up, deploy and print, not {mode}")
    except KeyboardInterrupt:
        print("stopped")
    except TandemError as error:
        print(f"tandem: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
