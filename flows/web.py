"""The HTTP side of `tandem serve`: three addresses, JSON in and out, and what is refused before a model is asked.

Nothing is rendered: texts of a corpus leave as JSON strings, and a browser is told not to take them for anything else.
"""

import asyncio
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Annotated, Any, cast

from pydantic import Field, ValidationError
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from flows import faults, serving
from flows.serving import Desk, Unavailable
from tasks.errors import InputError, TandemError
from tasks.manifest import faults as named_faults
from tasks.manifest import no_doubled_key
from tasks.params import Arm
from tasks.params_files import Group
from tasks.records import Record

BODY = 131_072  # bytes: the longest question, every character of it escaped, is shorter
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Limits:
    seconds: float  # from the first byte of a question to its answer, waiting for earlier ones included
    waiting: int  # questions at a time, the one at work included


class Asked(Group):
    question: str
    arm: Annotated[str, Field(max_length=20)] | None = None


def application(desk: Desk, limits: Limits, token: str, hosts: Sequence[str], workers: ThreadPoolExecutor) -> "Guard":
    """`hosts`: names by which this server may be called; none: any. `workers` has one thread: a tokenizer is no two's at a time,
    and two answers at once on the same cores are no faster."""
    line = Line(desk, limits, workers)

    async def ask(request: Request) -> JSONResponse:
        try:
            async with asyncio.timeout(limits.seconds):
                wanted = parse(await body(request))
                return reply(200, await line.answer(wanted))
        except TimeoutError:
            raise HTTPException(504, f"no answer within {limits.seconds:g} s; ask again later, or shorter") from None

    async def health(request: Request) -> JSONResponse:
        return reply(200 if desk.served else 503, serving.health(desk))

    async def release(request: Request) -> JSONResponse:
        return reply(200, serving.described(desk))

    routes = [
        Route("/ask", spoken(ask), methods=["POST"]), Route("/health", spoken(health)), Route("/release", spoken(release)),
    ]  # fmt: skip
    return Guard(Starlette(routes=routes, exception_handlers={HTTPException: refused}), token, hosts)


class Line:
    """Questions wait their turn; whoever would wait too long is not let in."""

    def __init__(self, desk: Desk, limits: Limits, workers: ThreadPoolExecutor) -> None:
        self.desk, self.limits, self.workers = desk, limits, workers
        self.places = BoundedSemaphore(limits.waiting)

    async def answer(self, wanted: Asked) -> Record:
        if not self.places.acquire(blocking=False):
            raise HTTPException(503, f"{self.limits.waiting} questions are waiting already; ask again", {"Retry-After": "1"})
        work = self.workers.submit(serving.answer, self.desk, wanted.question, cast(Arm | None, wanted.arm))
        work.add_done_callback(self.leave)  # when it is done with, not when its asker has gone
        return await asyncio.wrap_future(work)

    def leave(self, work: "Future[Record]") -> None:
        self.places.release()


# --- What is asked


async def body(request: Request) -> bytes:
    """As far as it may go: neither a length that is named nor one that is not fills the memory."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send JSON: Content-Type: application/json")
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > BODY:
                raise HTTPException(413, f"the body is longer than {BODY} bytes; ask for one thing")
    except ClientDisconnect as error:
        raise HTTPException(400, "the body ended early") from error
    return bytes(data)


def parse(data: bytes) -> Asked:
    """Raises InputError for what is not {"question": text} with, if so, {"arm": text}."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=no_doubled_key)
    except (ValueError, RecursionError) as error:
        raise InputError(f'the body is not JSON ({error}); send {{"question": "..."}}') from error
    try:
        return Asked.model_validate(value)
    except ValidationError as error:
        raise InputError(f'{named_faults(error)}; send {{"question": "..."}} and, if you like, "arm"') from error


# --- What is said


def reply(status: int, content: Record, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(content, status, {**SAFE, **(headers or {})})


async def refused(request: Request, error: Exception) -> JSONResponse:
    found = cast(HTTPException, error)
    return reply(found.status_code, {"error": found.detail}, found.headers)


def spoken(endpoint: Any) -> Any:
    """With every error as a status and a sentence: the asker's as 4xx, ours as 5xx."""

    async def answered(request: Request) -> JSONResponse:
        try:
            return cast(JSONResponse, await endpoint(request))
        except HTTPException:
            raise
        except InputError as error:
            return reply(400, {"error": str(error)})
        except Unavailable as error:
            return reply(503, {"error": str(error)})
        except TandemError as error:
            return reply(500, {"error": str(error)})
        except Exception as error:  # the traceback is in a file: `describe` says which
            return reply(500, {"error": faults.describe(error)})

    return answered


class Guard:
    """Who may ask at all: with the token, where one is set; called by one of our names, so that no page of the web that a browser
    shows reaches this machine's server under a name of its own (DNS rebinding)."""

    def __init__(self, app: ASGIApp, token: str, hosts: Sequence[str]) -> None:
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self.refusal(Headers(scope=scope)) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, receive, send)

    def refusal(self, headers: Headers) -> JSONResponse | None:
        name = re.fullmatch(r"(\[[0-9a-f:]+\]|[^][:]*)(:[0-9]+)?", headers.get("host", "").lower())
        if self.hosts and (name is None or name[1] not in self.hosts):
            return reply(421, {"error": f"this server is not called that; it answers to {', '.join(self.hosts)}"})
        given = headers.get("authorization", "")
        if self.token and not hmac.compare_digest(given.encode("latin-1"), f"Bearer {self.token}".encode("latin-1")):
            return reply(401, {"error": "send Authorization: Bearer TOKEN"}, {"WWW-Authenticate": "Bearer"})
        return None
