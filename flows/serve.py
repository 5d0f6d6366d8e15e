"""`tandem serve`: the live release over HTTP, on this machine or, with a token, for others, until SIGTERM or Ctrl-C."""

import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Thread

from flows.serving import Desk, alias_fault, said, watch, watch_alias
from flows.settings import Settings
from flows.web import Guard, Limits, application
from tasks.errors import InputError, TandemError
from tasks.records import Record

HOST, PORT = "127.0.0.1", 8600
OUR_NAMES = ("localhost", "127.0.0.1", "[::1]")
CONNECTIONS = 256  # at a time; more are closed
QUIET = {  # a server opens no connection but to its stores, and does not wait minutes for a registry that is down
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


def serve(settings: Settings, host: str, port: int, limits: Limits) -> Record:
    """Returns when it was told to stop and every question that it had begun is answered. Raises TandemError before it listens:
    for an address without a token, a port that is taken, a release that does not load, an alias that is not the ledger's."""
    check(settings, host, limits)
    os.environ.update(QUIET)
    with bound(host, port) as listener, ThreadPoolExecutor(1, "answers") as workers:
        desk = Desk(settings)
        check_alias(desk)
        address = address_of(listener)
        listener.listen()  # who comes from here on waits for uvicorn, and is not sent away
        print(f"tandem: {said(desk.served)}, at {address}; Ctrl-C ends it", file=sys.stderr, flush=True)
        hosts = () if settings.token else OUR_NAMES
        with watching(desk):
            listen(application(desk, limits, settings.token, hosts, workers), listener, limits)
    return {"outcome": "stopped", "address": address, "release": desk.served.named() if desk.served else None}


def check(settings: Settings, host: str, limits: Limits) -> None:
    if not is_loopback(host) and not settings.token:
        raise InputError(
            f"--host {host}: whoever reaches this machine could ask; set TANDEM_TOKEN, which they then have to send, or leave it "
            f"at {HOST} behind a proxy that asks for a password"
        )
    if not (0 < limits.seconds <= 3600 and 0 < limits.waiting <= 1000):
        raise InputError(f"--seconds {limits.seconds:g} --waiting {limits.waiting}: give 1 to 3600 and 1 to 1000")


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: who knows where it leads
        return False


@contextmanager
def bound(host: str, port: int) -> Iterator[socket.socket]:
    """Ours from here on, so that a port that is taken is found before a model is loaded; nobody is let in yet."""
    if not 0 <= port < 65536:
        raise InputError(f"--port {port}: give a number from 0 (any that is free) to 65535")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"--host {host}: this machine has no such address ({error})") from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(place)
        except OSError as error:
            raise InputError(f"{host}:{port} cannot be listened at ({error}); choose another: tandem serve --port N") from error
        yield listener


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def check_alias(desk: Desk) -> None:
    """Raises IntegrityError, with the command that mends it, where MLflow's users would be led elsewhere, or nowhere."""
    try:
        desk.alias = alias_fault(desk.settings)
    except TandemError:
        raise
    except Exception:  # a registry that is down: said at /health, and looked at again
        desk.look_at_alias()


@contextmanager
def watching(desk: Desk) -> Iterator[None]:
    stop = Event()
    threads = [Thread(target=each, args=(desk, stop), name=each.__name__, daemon=True) for each in (watch, watch_alias)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()  # they are daemons: a release that is being loaded is not waited for


def listen(app: Guard, listener: socket.socket, limits: Limits) -> None:
    """Until a signal; then nobody is let in any more, and those who are in get their answers."""
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, proxy_headers=False, lifespan="off", ws="none",
        limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=round(limits.seconds) + 1,
    )  # fmt: skip
    before = [signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)]  # uvicorn raises it again
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)
