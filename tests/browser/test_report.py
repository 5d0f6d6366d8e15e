"""The report's page in a real browser: what a reader does with it, and what hostile texts in it cannot do."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from driving import Tab, tab
from judging import HOSTILE, costly, judged

from tasks.page import page

WIDE, NARROW = (1300, 1000), (380, 900)
SHOWN = "document.getElementById('shown').textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with tab(tmp_path_factory.mktemp("chromium") / "profile") as opened:
        yield opened


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    long = "Unbreakable" * 20
    pages = {"plain": judged(count=12), "hostile": judged(count=16, texts=HOSTILE), "long": judged(texts=(long,))}
    pages["costs"] = costly(judged(count=2))
    pages["long"] = replace(pages["long"], answers=[record | {"document": long} for record in pages["long"].answers])
    for name, case in pages.items():
        (folder / f"{name}.html").write_text(page(case), encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in pages}


def choose(browser: Tab, name: str, value: str) -> str:
    """Set one filter as a person does, and return what the page then says it shows."""
    place = f"document.querySelector(\"#filters [name='{name}']\")"
    browser.run(f"{place}.value = {value!r}; {place}.dispatchEvent(new Event('input'))")
    return str(browser.run(SHOWN))


def test_questions_are_filtered_by_arm_text_slice_and_change(browser: Tab, addresses: dict[str, str], pictures: Path) -> None:
    browser.open(addresses["plain"], *WIDE)
    browser.picture(pictures / "report-wide.png")
    assert browser.run(SHOWN) == "12 of 12 questions"
    assert choose(browser, "1", "0") == "6 of 12 questions"  # rag: every second one is wrong
    assert choose(browser, "slice", "1") == "2 of 12 questions"
    assert choose(browser, "text", "QUESTION 7") == "1 of 12 questions"
    assert browser.run("[...document.querySelectorAll('tbody.question')].filter((each) => each.offsetHeight).length") == 1
    browser.run("document.getElementById('all').click()")
    assert browser.run(SHOWN) == "12 of 12 questions"
    browser.run("document.querySelector('button[data-filter=change][value=lost]').click()")
    assert browser.run(SHOWN) == "1 of 12 questions"


def test_a_question_opens_on_its_passages(browser: Tab, addresses: dict[str, str]) -> None:
    browser.open(addresses["hostile"] + "?opened", *WIDE)
    browser.run("document.querySelectorAll('#answers details').forEach((each) => each.querySelector('summary').click())")
    browser.run("new Promise((done) => setTimeout(done, 300))")
    texts = browser.run("[...document.querySelectorAll('[data-passage]')].map((each) => each.textContent)")
    assert len(texts) == 32 and all(texts)  # rag, rag+lora and the champion share theirs
    assert HOSTILE[0] in texts


def test_hostile_texts_run_nothing_and_reach_nothing(browser: Tab, addresses: dict[str, str], pictures: Path) -> None:
    browser.events.clear()
    browser.open(addresses["hostile"], *WIDE)
    browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true })")
    browser.run("document.querySelectorAll('td, bdi, .text').forEach((each) => each.dispatchEvent(new Event('mouseover')))")
    browser.run("new Promise((done) => setTimeout(done, 500))")
    browser.picture(pictures / "report-hostile.png")
    assert browser.run("document.title") == "Release 2 (111111111111): promoted"
    assert browser.run("document.querySelectorAll('script').length") == 1
    asked = [each["params"]["request"]["url"] for each in browser.events if each["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [addresses["hostile"]]
    assert [each for each in browser.events if each["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")] == []


def test_the_policy_stops_a_script_that_escaping_would_have_missed(browser: Tab, addresses: dict[str, str]) -> None:
    browser.open(addresses["plain"] + "?planted", *WIDE)
    browser.run(
        "const planted = document.createElement('script'); planted.textContent = 'document.title = 1'; "
        "document.body.append(planted); document.body.insertAdjacentHTML('beforeend', '<img src=\"http://127.0.0.1:9/x.png\">')"
    )
    browser.run("new Promise((done) => setTimeout(done, 300))")
    assert browser.run("document.title") == "Release 2 (111111111111): promoted"
    refused = [each["params"]["entry"]["text"] for each in browser.events if each["method"] == "Log.entryAdded"]
    assert any("Content Security Policy" in text and "img-src" in text for text in refused)


@pytest.mark.parametrize("size", [WIDE, NARROW])
@pytest.mark.parametrize("name", ["plain", "long"])
def test_nothing_is_cut_off_at_the_side(
    browser: Tab, addresses: dict[str, str], pictures: Path, name: str, size: tuple[int, int]
) -> None:
    browser.open(f"{addresses[name]}?{size[0]}", *size)
    browser.picture(pictures / f"report-{name}-{size[0]}.png")
    assert browser.run("document.documentElement.scrollWidth") <= size[0]
    assert browser.run("[...document.images].every((each) => each.complete && each.naturalWidth > 100)")


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_what_answers_cost_stays_a_table_that_can_be_read(
    browser: Tab, addresses: dict[str, str], pictures: Path, size: tuple[int, int]
) -> None:
    """A narrow column once had a letter a line."""
    browser.open(f"{addresses['costs']}?{size[0]}", *size)
    browser.run("document.querySelector('table.costs').scrollIntoView()")
    browser.picture(pictures / f"report-costs-{size[0]}.png")
    rows = browser.run("[...document.querySelectorAll('table.costs tbody tr')].map((each) => each.offsetHeight)")
    assert len(rows) == 7 and max(rows) < 90
    assert browser.run("document.querySelector('table.costs').getBoundingClientRect().right") <= size[0]


def test_on_paper_the_filters_are_gone_and_the_answers_there(browser: Tab, addresses: dict[str, str], tmp_path: Path) -> None:
    from pypdf import PdfReader

    browser.open(addresses["plain"] + "?paper", *WIDE)
    browser.pdf(tmp_path / "report.pdf")
    text = " ".join(page.extract_text() for page in PdfReader(tmp_path / "report.pdf").pages)
    assert "Release 2 was promoted" in text and "Question 11?" in text
    assert "show all" not in text
