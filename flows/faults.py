"""What a person is told of an error that Tandem did not raise itself: what, where, how to mend it; the traceback is in a file."""

import os
import re
import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from flows.lock import private_folder
from flows.settings import read_settings, shown
from tasks.errors import TandemError
from tasks.stage import AGAIN, free_space, of_the_system

LESS_MEMORY = "lower batch_tokens in params/adapter.yaml, params/index.yaml and params/evaluate.yaml"
NETWORK = ("requests", "httpx", "httpcore", "urllib3")  # libraries whose errors about connections are no ConnectionError


def describe(error: Exception) -> str:
    """One line for the well-known, one for the rest; each with the file that holds the traceback, where one could be written."""
    known = next((said for link in causes(error) if (said := explain(link))), None)
    log = write_log(error)
    details = f" (traceback: {log})" if log else ""
    return f"{known or unexpected(error)}{details}"


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those behind it, the outermost first: libraries wrap a full disk three times."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def explain(error: BaseException) -> str | None:
    if isinstance(error, sqlite3.Error):
        return explain_sqlite(str(error))
    if isinstance(error, ConnectionError) or is_of_network(type(error)):
        return f"a server cannot be reached ({first_line(error)}). Start it or correct the address{servers()}, {AGAIN}"
    if type(error).__name__ == "PrefectHTTPStatusError":
        return f"Prefect's server failed ({first_line(error)[:200]}); see whether its disk is full (PREFECT_HOME), {AGAIN}"
    if isinstance(error, MemoryError):
        return f"memory ran out; free some, or {LESS_MEMORY}, {AGAIN}"
    if isinstance(error, OSError):
        return of_the_system(error)
    return explain_text(first_line(error))


def is_of_network(kind: type[BaseException]) -> bool:
    return kind.__module__.split(".")[0] in NETWORK and ("Connect" in kind.__name__ or "Timeout" in kind.__name__)


def explain_sqlite(text: str) -> str:
    if "locked" in text or "busy" in text:
        return f"a database is in use ({text}): another process writes to it; wait for that or stop it, {AGAIN}"
    if "full" in text or "I/O" in text:
        return f"a database cannot be written ({text}); {free_space(Path.cwd())}, {AGAIN}"
    return f"a database below .tandem does not read ({text}): damaged, or made by a newer version. See: tandem doctor"


def explain_text(text: str) -> str | None:
    """Libraries that say it in words only: Lance through its Rust core, MLflow about a server, Prefect about its own."""
    if "No space left on device" in text:
        return f"no space left on the device ({text}); {free_space(Path.cwd())}, {AGAIN}"
    if re.search(r"MemoryError|out of memory|allocate memory|Unable to allocate", text):
        return f"memory ran out ({text[:200]}); free some, or {LESS_MEMORY}, {AGAIN}"
    if re.search(r"\blance(db)?\b", text, re.IGNORECASE):
        return f"the index does not read or write: {text}. See: tandem doctor"
    if "out-of-date database schema" in text:
        return f"MLflow's database is of another version of MLflow ({text[:120]}); `make setup` installs the one of this clone"
    if "ephemeral Prefect API server" in text:
        return f"Prefect's server did not start in time ({text}); see what else keeps this machine busy, {AGAIN}"
    return None


def servers() -> str:
    named = {name: os.environ.get(name, "") for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL")}
    given = ", ".join(f"{name}={shown(value)}" for name, value in named.items() if value.startswith("http"))
    return f" ({given})" if given else ""


def unexpected(error: BaseException) -> str:
    return (
        f"unexpected {type(error).__name__} in {place(error)}: {first_line(error)}. Run the same command again; where it stays, "
        "`tandem doctor` tells what is damaged. Please report it, with the traceback"
    )


def place(error: BaseException) -> str:
    """Where in Tandem's own code, else in whatever code."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).parent.name in ("flows", "tasks")]
    last = (ours or frames)[-1:]
    return f"{Path(last[0].filename).parent.name}/{Path(last[0].filename).name}:{last[0].lineno}" if last else "an unknown place"


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:500]


def write_log(error: Exception) -> Path | None:
    """None where it cannot be written: the disk may be what is full."""
    with suppress(OSError, TandemError):
        folder = private_folder(read_settings().home / "logs")
        path = folder / f"error-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.log"
        path.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        return path
    return None
