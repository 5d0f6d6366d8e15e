"""The HTTP side of `tandem serve`: what is answered, what is refused, and that releases change between answers, never in one."""

import asyncio
import json
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny
from releases import QUESTION, Maker, promote, stand_in

from flows import serve, serving
from flows.serving import Desk
from flows.settings import Settings, read_settings
from flows.web import BODY, Guard, Limits, application
from tasks.errors import InputError

LIMITS = Limits(seconds=30, waiting=4)
TOKEN = "a-token-that-nobody-guesses"
Ask = Callable[[httpx.AsyncClient], Coroutine[Any, Any, Any]]


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        yield patch


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("web") / "clone")


@pytest.fixture(scope="module")
def desk(maker: Maker, patch: pytest.MonkeyPatch) -> Desk:
    promote(maker.settings, maker.make(1))
    return Desk(maker.settings)


def call(desk: Desk, ask: Ask, limits: Limits = LIMITS, token: str = "", hosts: tuple[str, ...] = serve.OUR_NAMES) -> Any:
    with ThreadPoolExecutor(1) as workers:
        app = application(desk, limits, token, hosts, workers)
        return asyncio.run(using(app, ask))


async def using(app: Guard, ask: Ask) -> Any:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8600") as client:
        return await ask(client)


def post(desk: Desk, body: Any, **more: Any) -> httpx.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | more.pop("headers", {})
    response: httpx.Response = call(desk, lambda client: client.post("/ask", content=data, headers=headers), **more)
    return response


def get(desk: Desk, path: str, **more: Any) -> httpx.Response:
    headers = more.pop("headers", {})
    response: httpx.Response = call(desk, lambda client: client.get(path, headers=headers), **more)
    return response


def test_an_answer_names_its_release_its_passages_and_the_id_that_why_knows(desk: Desk) -> None:
    answered = post(desk, {"question": QUESTION})
    assert answered.status_code == 200
    found = answered.json()
    assert list(found) == ["answer", "arm", "release", "number", "citations", "passages", "id"]
    assert (found["number"], len(found["passages"]), len(found["id"])) == (1, 3, 8)
    assert post(desk, {"question": QUESTION, "arm": "lora"}).json()["passages"] == []


def test_health_and_release_tell_what_answers(desk: Desk) -> None:
    health, release = get(desk, "/health").json(), get(desk, "/release").json()
    assert (health["status"], health["release"]["number"], health["wrong"]) == ("ok", 1, [])
    assert health["release"]["id"] == release["id"] and release["manifest"]["arm"] == "rag+lora"
    assert (release["entry"]["why"], release["entry"]["who"]) == ("a test", "ada")


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"question": ""}, 400, "the question is empty"),
        ({"question": " \u0000\n"}, 400, "the question is empty"),
        ({"question": "x" * 8001}, 400, "the limit is 8000. Ask for one thing"),
        ({"question": "x" * 1_000_000}, 413, f"longer than {BODY} bytes"),
        ({"question": QUESTION, "arm": "best"}, 400, "there is no arm 'best'; choose one of prompt, rag, lora, rag+lora"),
        ({"question": QUESTION, "arm": "x" * 21}, 400, "arm: String should have at most 20 characters"),
        ({"question": QUESTION, "release": 1}, 400, "release: Extra inputs are not permitted"),
        ({"question": 7}, 400, "question: Input should be a valid string"),
        ({}, 400, "question: Field required"),
        ([], 400, "Input should be a valid dictionary"),
        (b"", 400, "the body is not JSON"),
        (b"{'question': 'x'}", 400, "the body is not JSON"),
        (b'{"question": "a", "question": "b"}', 400, "key 'question' stands twice"),
        (b'{"question": "\xff"}', 400, "the body is not JSON"),
        (b"[" * 100_000, 400, "the body is not JSON"),
    ],
)  # fmt: skip
def test_a_question_that_is_none_is_refused_with_the_reason(desk: Desk, body: Any, status: int, says: str) -> None:
    refused = post(desk, body)
    assert (refused.status_code, says in refused.json()["error"]) == (status, True), refused.text


def test_the_longest_question_fits_into_a_body_however_it_is_escaped(desk: Desk) -> None:
    assert post(desk, {"question": "\N{PILE OF POO}" * 8000}).status_code == 200
    assert post(desk, b'{"question": "half a character \\ud800"}').status_code == 200


def test_other_addresses_methods_and_kinds_are_refused_as_json(desk: Desk) -> None:
    for response, status in (
        (get(desk, "/"), 404), (get(desk, "/ask"), 405), (get(desk, "/../settings"), 404),
        (post(desk, {"question": "x"}, headers={"Content-Type": "text/plain"}), 415),
    ):  # fmt: skip
        assert response.status_code == status and response.json()["error"], response.text
        assert response.headers["content-type"] == "application/json"


def test_what_a_page_holds_leaves_as_text_that_no_browser_renders(desk: Desk) -> None:
    for response in (post(desk, {"question": "<script>alert(1)</script>"}), post(desk, {"question": ""}), get(desk, "/health")):
        assert response.headers["content-type"] == "application/json"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-security-policy"].startswith("default-src 'none'")


WRONG = ("", "Bearer", "Bearer ", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", TOKEN, f"Basic {TOKEN}", "Bearer \xff")


def test_only_who_has_the_token_is_answered(desk: Desk) -> None:
    def status(path: str, given: str) -> int:
        headers = {"Authorization": given.encode("latin-1"), "Host": b"any.example.org"}
        return get(desk, path, token=TOKEN, hosts=(), headers=headers).status_code

    for path in ("/health", "/release", "/ask"):
        assert {status(path, given) for given in WRONG} == {401}
    assert status("/health", f"Bearer {TOKEN}") == 200


def test_without_a_token_only_this_machines_own_names_lead_here(desk: Desk) -> None:
    """A page of the web that points a name of its own at 127.0.0.1 would be let in by the browser."""
    for host, status in (("evil.example.org", 421), ("127.0.0.1.evil.example.org:8600", 421), ("", 421), ("[::1]:8600", 200),
                         ("localhost", 200), ("LOCALHOST:1", 200), ("[::1].evil.example.org", 421)):  # fmt: skip
        assert get(desk, "/health", headers={"Host": host}).status_code == status, host


def test_where_nothing_is_live_every_address_says_so(desk: Desk) -> None:
    own = Desk(desk.settings)
    own.served = None
    for response in (post(own, {"question": QUESTION}), get(own, "/health"), get(own, "/release")):
        assert response.status_code == 503 and "nothing is live" in response.text


@contextmanager
def held(patch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Every answer waits for this event."""
    go, real = threading.Event(), serving.answer
    with patch.context() as here:
        here.setattr(serving, "answer", lambda *given: go.wait(60) and real(*given))
        try:
            yield go
        finally:
            go.set()


def test_more_questions_than_may_wait_are_sent_away_at_once_and_those_that_wait_are_answered(
    desk: Desk, patch: pytest.MonkeyPatch
) -> None:
    async def crowd(client: httpx.AsyncClient) -> list[int]:
        asking = [asyncio.create_task(client.post("/ask", json={"question": QUESTION})) for _ in range(LIMITS.waiting + 3)]
        done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 3:
            more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        assert (await client.get("/health")).status_code == 200  # whoever waits for a model keeps nobody from looking
        go.set()
        return [(await each).status_code for each in asking]

    with held(patch) as go:
        assert sorted(call(desk, crowd)) == [200] * LIMITS.waiting + [503] * 3


def test_a_question_that_takes_too_long_is_told_so_and_gives_its_place_back(desk: Desk, patch: pytest.MonkeyPatch) -> None:
    async def slow(client: httpx.AsyncClient) -> list[int]:
        late = await asyncio.gather(*(client.post("/ask", json={"question": QUESTION}) for _ in range(2)))
        assert all("no answer within 0.3 s" in each.json()["error"] for each in late)
        go.set()
        while (again := await client.post("/ask", json={"question": QUESTION})).status_code != 200:
            assert again.status_code in (503, 504)
        return [each.status_code for each in late]

    with held(patch) as go:
        assert call(desk, slow, Limits(seconds=0.3, waiting=2)) == [504, 504]


def test_a_fault_of_ours_is_an_error_500_with_a_sentence_and_the_server_goes_on(desk: Desk, patch: pytest.MonkeyPatch) -> None:
    def fails(*given: object) -> None:
        raise RuntimeError("lance: data file is gone")

    with patch.context() as here, tiny.inside(desk.settings.root):
        here.setattr(serving, "answer", fails)
        failed = post(desk, {"question": QUESTION})
    assert failed.status_code == 500 and "the index does not read or write" in failed.json()["error"]
    assert post(desk, {"question": QUESTION}).status_code == 200


# --- Who may start one


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "example.org", "127.0.0.1.example.org", ""])
def test_an_address_for_others_needs_a_token(host: str, maker: Maker) -> None:
    with pytest.raises(InputError, match="set TANDEM_TOKEN"):
        serve.check(maker.settings, host, LIMITS)


def test_a_token_opens_other_addresses_and_this_machine_needs_none(maker: Maker) -> None:
    with tiny.inside(maker.settings.root):
        serve.check(read_settings({"TANDEM_TOKEN": TOKEN}), "0.0.0.0", LIMITS)
    for host in ("127.0.0.1", "localhost", "::1", "127.3.2.1"):
        serve.check(maker.settings, host, LIMITS)


@pytest.mark.parametrize("token", ["short", "with a space in it, long enough", "mit-Umlaut-ä-lang-genug"])
def test_a_token_that_is_guessed_or_cannot_be_sent_is_refused_and_not_repeated(token: str, maker: Maker) -> None:
    with tiny.inside(maker.settings.root), pytest.raises(InputError, match="TANDEM_TOKEN: use 16 characters") as refused:
        read_settings({"TANDEM_TOKEN": token})
    assert token not in str(refused.value)
    assert TOKEN not in repr(Settings(**{**maker.settings.__dict__, "token": TOKEN}))


@pytest.mark.parametrize("limits", [Limits(0, 1), Limits(-1, 1), Limits(float("nan"), 1), Limits(1, 0), Limits(1e9, 1)])
def test_limits_that_are_none_are_refused(limits: Limits, maker: Maker) -> None:
    with pytest.raises(InputError, match="--seconds"):
        serve.check(maker.settings, "127.0.0.1", limits)


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(maker: Maker) -> None:
    with serve.bound("127.0.0.1", 0) as first:
        first.listen()
        taken = first.getsockname()[1]
        with pytest.raises(InputError, match=f"127.0.0.1:{taken} cannot be listened at.*--port N"):
            serve.serve(maker.settings, "127.0.0.1", taken, LIMITS)
    for port in (-1, 65536):
        with pytest.raises(InputError), serve.bound("127.0.0.1", port):
            pass


def test_many_questions_keep_no_file_open(desk: Desk) -> None:
    place = Path("/proc/self/fd")
    post(desk, {"question": QUESTION})
    before = len(os.listdir(place))
    for _ in range(20):
        post(desk, {"question": QUESTION})
    assert len(os.listdir(place)) <= before + 3
