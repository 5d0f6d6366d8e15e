"""`make up`: MLflow's and Prefect's UIs over this clone's state, its deployments and a worker, on this machine alone, until Ctrl-C.

`python -m flows.servers deploy` brings only pools and deployments to the server that PREFECT_API_URL names; `print` says where all is.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.lock import exclusive, private_folder
from flows.settings import Settings, child_environment, prepare, read_settings
from tasks.errors import InputError, TandemError

HOST = "127.0.0.1"
START_SECONDS = 180  # the first start makes the databases; on a busy machine that takes a minute
STOP_SECONDS = 20  # a worker ends its flow runs first
DEPLOYMENTS = "infra/prefect.yaml"


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


def port(variable: str, default: int, environment: Mapping[str, str]) -> int:
    value = environment.get(variable, str(default))
    if not value.isascii() or not value.isdigit() or not 0 < int(value) < 65536:
        raise InputError(f"{variable}={value} is not a port; give a number such as {default}")
    return int(value)


def mlflow_address(settings: Settings, environment: Mapping[str, str] = os.environ) -> str:
    """That of a shared tracking server where the settings name one, else the one that `make up` starts."""
    if settings.tracking_uri.startswith(("http://", "https://")):
        return settings.tracking_uri
    return f"http://{HOST}:{port('MLFLOW_PORT', 5000, environment)}"


def prefect_address(environment: Mapping[str, str] = os.environ) -> str:
    return f"http://{HOST}:{port('PREFECT_PORT', 4200, environment)}"


def servers(settings: Settings, environment: Mapping[str, str]) -> list[Service]:
    python = [sys.executable, "-m"]
    address, prefect = mlflow_address(settings, environment), prefect_address(environment)
    listen = ["--host", HOST, "--port"]
    store = ["--backend-store-uri", settings.tracking_uri, "--default-artifact-root", settings.artifacts, "--no-serve-artifacts"]
    found = [
        Service("prefect", [*python, "prefect", "server", "start", *listen, prefect.rsplit(":", 1)[1]], f"{prefect}/api/health")
    ]
    if address != settings.tracking_uri:
        command = [*python, "mlflow", "server", *listen, address.rsplit(":", 1)[1], "--workers", "1", *store]
        found.append(Service("mlflow", command, f"{address}/health"))
    return found


def worker(pool: str) -> Service:
    return Service(
        f"worker-{pool}", [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--name", f"tandem-{pool}"], None
    )


def check(services: list[Service], environment: Mapping[str, str]) -> None:
    """Raises InputError before anything is started: an address for others, a port that is taken, another server in charge."""
    for variable in ("MLFLOW_HOST", "PREFECT_SERVER_API_HOST"):
        if environment.get(variable, HOST) not in (HOST, "localhost"):
            raise InputError(
                f"{variable}={environment[variable]}: these servers ask nobody for a password, so they listen on {HOST} only; "
                "for other people put a proxy that does in front of them (docs/operations.md)"
            )
    if environment.get("PREFECT_API_URL"):
        raise InputError(
            f"PREFECT_API_URL={environment['PREFECT_API_URL']} names a server that runs already. Deploy there by "
            "`python -m flows.servers deploy` and start a worker, or unset it for a server of this clone's own"
        )
    ports = [str(service.health).split("/")[2].rsplit(":", 1)[1] for service in services]
    if len(set(ports)) < len(ports):
        raise InputError(f"MLFLOW_PORT and PREFECT_PORT are both {ports[0]}; give two")
    for service, number in zip(services, ports, strict=True):
        check_free(service, int(number))


def check_free(service: Service, number: int) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, number))
        except OSError as error:
            raise InputError(
                f"port {number} on {HOST} is taken ({error.strerror}); stop what listens there, or choose another: "
                f"{service.name.upper()}_PORT={number + 1} make up"
            ) from error


# --- Starting and stopping: whole process groups, whatever happens to this process


@contextmanager
def guarded() -> Iterator[int]:
    """Yields a pipe. A process group whose id is written into it ends when this block does, or when this process dies, even by kill -9."""
    reading, writing = os.pipe()
    guard = os.fork()
    if guard == 0:
        os.close(writing)
        watch_over(reading)
    os.close(reading)
    try:
        yield writing
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half of them
        os.close(writing)
        os.waitpid(guard, 0)


def watch_over(reading: int) -> None:
    """The guard, in a session of its own: at the end of the pipe there is nobody left who wants the groups."""
    os.setsid()
    with os.fdopen(reading) as pipe:
        groups = [int(line) for line in pipe]
    send(groups, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline and send(groups, 0):
        time.sleep(0.1)
    send(groups, signal.SIGKILL)
    os._exit(0)


def send(groups: list[int], number: int) -> list[int]:
    """Signal 0 only asks. Returns the groups that there still are."""
    there = []
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, number)
            there.append(group)
    return there


def start(service: Service, settings: Settings, environment: dict[str, str], guard: int) -> Running:
    log = private_folder(settings.home / "logs") / f"{service.name}.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            service.command, cwd=settings.root, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
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
                f"{each.service.name} ended by itself (exit {each.process.returncode}); its last words in {each.log}:\n{last}"
            )


# --- Pools and deployments


def deploy(settings: Settings) -> None:
    """Make the work pools that the deployments name, then the deployments. What exists is brought up to date, limits of pools stay."""
    make_pools(pools(settings.root / DEPLOYMENTS))
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", DEPLOYMENTS]
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
    """Runs until a signal ends it, or a server ends by itself (TandemError)."""
    services = servers(settings, os.environ)
    check(services, os.environ)
    environment = os.environ | child_environment(settings) | {"PREFECT_API_URL": f"{prefect_address()}/api"}
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with exclusive(settings.home / "servers.lock", what="`make up`"), guarded() as guard:
        print("starting the servers ...", flush=True)
        running = [start(service, settings, environment, guard) for service in services]
        wait_until_healthy(running)
        subprocess.run([sys.executable, "-m", "flows.servers", "deploy"], cwd=settings.root, env=environment, check=True)
        running.append(start(worker("cpu"), settings, environment, guard))
        print(where(settings), flush=True)
        while True:
            check_alive(running)
            time.sleep(0.5)


def where(settings: Settings) -> str:
    """What a person opens, and what is to be seen there."""
    mlflow, prefect = mlflow_address(settings), prefect_address()
    return f"""
Prefect  {prefect}/runs
         every flow run with its stages, logs, and the artifacts `arms` and `verdict`; start one under Deployments
MLflow   {mlflow}/#/experiments
         runs of project {settings.project}: params, metrics, curves, plots, answers side by side
         {mlflow}/#/models/assistant
         every release as a version; the alias champion is live
Logs     {settings.home / "logs"}
A worker runs the pool cpu. `retrain` waits for one on gpu: PREFECT_API_URL={prefect}/api prefect worker start --pool gpu
Ctrl-C ends all of it."""


def main() -> None:
    mode = sys.argv[1] if len(sys.argv) > 1 else "up"
    try:
        settings = read_settings()
        if mode not in ("up", "deploy", "print"):
            raise InputError(f"flows.servers knows up, deploy and print, not {mode}")
        if mode == "deploy":
            prepare(settings)
            deploy(settings)
        elif mode == "print":
            print(where(settings))
        else:
            up(settings)
    except KeyboardInterrupt:
        print("stopped")
    except TandemError as error:
        print(f"tandem: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
