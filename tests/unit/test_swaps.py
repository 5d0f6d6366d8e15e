"""Releases change while questions come: none is answered from two, none is left without an answer."""

import asyncio
import statistics
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import httpx
import pytest
from releases import QUESTION, Made, Maker, promote
from test_web import call, maker, patch

from flows import serving
from flows.serving import Desk, watch
from flows.web import Limits

__all__ = ["maker", "patch"]
RATE = 20  # questions a second, come what may: a busy machine has them wait
PATIENCE = 600  # seconds


@pytest.mark.parametrize(
    ("promotions", "rollbacks"), [(6, 2), pytest.param(100, 20, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_no_answer_is_mixed_and_none_fails_while_releases_change(
    promotions: int, rollbacks: int, maker: Maker, patch: pytest.MonkeyPatch
) -> None:
    """F05: each answer's passages, weights and prompt are all those of the release that it names."""
    made = [maker.make(number) for number in range(1, promotions + 2)]
    promote(maker.settings, made[0])
    desk, stop = Desk(maker.settings), threading.Event()
    patch.setattr(serving, "GLANCE_SECONDS", 0.02)
    watcher = threading.Thread(target=watch, args=(desk, stop))
    watcher.start()
    try:
        seen = call(desk, lambda client: readers(client, desk, made, rollbacks), Limits(seconds=PATIENCE, waiting=100_000))
    finally:
        stop.set()
        watcher.join()
    check_none_mixed([answer for answer, _, _ in seen], {each.identity: each for each in made})
    assert {answer["release"] for answer, _, _ in seen} >= {each.identity for each in made[1:]}
    report(seen, promotions, rollbacks)


async def readers(client: httpx.AsyncClient, desk: Desk, made: list[Made], rollbacks: int) -> list[tuple[Any, float, float]]:
    """Ask at a steady rate until every release was live: answer, when it came, how long it took."""
    asking: list[asyncio.Task[tuple[Any, float, float]]] = []
    came: Counter[str] = Counter()
    changing = asyncio.create_task(asyncio.to_thread(change, desk, made, rollbacks, came))
    started = time.monotonic()
    while not changing.done():
        asking.append(asyncio.create_task(one(client, came)))
        await asyncio.sleep(max(0.0, started + len(asking) / RATE - time.monotonic()))
    await changing
    return list(await asyncio.gather(*asking))


async def one(client: httpx.AsyncClient, came: Counter[str]) -> tuple[Any, float, float]:
    before = time.monotonic()
    response = await client.post("/ask", json={"question": QUESTION})
    assert response.status_code == 200, response.text
    came[response.json()["release"]] += 1
    return response.json(), time.monotonic(), time.monotonic() - before


def change(desk: Desk, made: list[Made], rollbacks: int, came: Counter[str]) -> None:
    """Every release in turn, now and then back to the one before; each once the one before it has answered a question."""
    every = max(1, (len(made) - 1) // max(1, rollbacks))
    for number, each in enumerate(made[1:], start=1):
        go_to(desk, each, "promote", came)
        if number % every == 0 and number // every <= rollbacks:
            go_to(desk, made[number - 1], "rollback", came)


def go_to(desk: Desk, made: Made, action: str, came: Counter[str]) -> None:
    answered = came[made.identity]
    promote(desk.settings, made, action)
    deadline = time.monotonic() + PATIENCE
    while came[made.identity] == answered:
        assert time.monotonic() < deadline, desk.newer
        time.sleep(0.01)


def check_none_mixed(answers: list[Any], made: dict[str, Made]) -> None:
    for answer in answers:
        named = made[answer["release"]]
        assert answer["answer"] == named.answer
        assert {passage["passage"] for passage in answer["passages"]} == named.passages


def report(seen: list[tuple[Any, float, float]], promotions: int, rollbacks: int) -> None:
    """The longest that nobody was answered, less the time between two questions, is what a switch-over can have cost."""
    came = sorted(at for _, at, _ in seen)
    gap = max(after - before for before, after in pairwise(came))
    took = sorted(seconds for _, _, seconds in seen)
    found = {"promotions": promotions, "rollbacks": rollbacks, "answers": len(seen), "median_ms": 1000 * statistics.median(took),
             "p99_ms": 1000 * took[int(0.99 * len(took))], "longest_ms": 1000 * took[-1],
             "longest_pause_ms": 1000 * (gap - 1 / RATE)}  # fmt: skip
    print({key: round(value, 1) for key, value in found.items()})


def test_a_question_that_has_begun_ends_with_the_release_that_it_began_with(maker: Maker, patch: pytest.MonkeyPatch) -> None:
    made = [maker.make(number) for number in (301, 302)]
    promote(maker.settings, made[0])
    own = Desk(maker.settings)
    assert own.served
    begun, go, real = threading.Event(), threading.Event(), own.served.assistant.ask

    def slow(*given: Any) -> Any:
        begun.set()
        assert go.wait(60)
        return real(*given)

    patch.setattr(own.served.assistant, "ask", slow, raising=False)
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(serving.answer, own, QUESTION, None)
        assert begun.wait(60)
        promote(maker.settings, made[1])
        assert own.glance()
        go.set()
        check_none_mixed([answer.result(60)], {made[0].identity: made[0]})
    check_none_mixed([serving.answer(own, QUESTION, None)], {made[1].identity: made[1]})
