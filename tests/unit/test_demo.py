"""`make demo` around its steps: whose corpus it may replace, what counts as done, where it goes on."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from workspace import write_workspace

from flows import demo
from flows.demo import Step, clean, make_day_two, refuse_another_corpus
from flows.settings import Settings
from tasks.errors import InputError, TandemError
from tasks.records import write_jsonl, write_text


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = write_workspace(tmp_path)
    corpus = tmp_path / "data/demo"
    write_text(corpus / "handbook/leave.md", "27 days")
    write_text(corpus / "handbook/gone.md", "an old page")
    write_text(corpus / "day-two/documents/leave.md", "28 days")
    write_text(corpus / "day-two/removed.txt", "gone.md\n")
    for name in ("questions.jsonl", "day-two/questions.jsonl"):
        write_jsonl(corpus / name, [{"id": "q1", "question": "How many?", "answer": "27", "document": "leave"}])
    return made


def test_a_corpus_of_somebody_is_not_replaced(settings: Settings) -> None:
    refuse_another_corpus(settings)  # there is none
    raw = settings.root / "data/raw/documents"
    shutil.copytree(settings.root / "data/demo/handbook", raw)
    refuse_another_corpus(settings)  # day one, by an earlier demo or by `make corpus`
    write_text(raw / "mine.md", "a page of somebody")
    with pytest.raises(InputError, match="holds a corpus that is not the demo's"):
        refuse_another_corpus(settings)
    shutil.rmtree(raw)
    shutil.copytree(make_day_two(settings.root / "data/demo", clean(settings, "other")) / "handbook", raw)
    refuse_another_corpus(settings)  # day two


class Played:
    """Steps that are only counted; the second fails as often as told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, outcomes: list[str]) -> None:
        self.did: list[str] = []
        self.outcomes = outcomes
        self.readied = 0  # times that a Prefect server was asked for
        monkeypatch.setattr(demo, "before_a_flow", self.ready)
        monkeypatch.setattr(demo, "finish", lambda settings, done: None)
        monkeypatch.setattr(demo, "plot", self.plot)

    def ready(self, settings: Settings) -> None:
        self.readied += 1

    def plot(self) -> dict[str, Step]:
        return {number: Step(number, self.step(number), ("promoted", "unchanged")) for number in ("1", "2", "3")}

    def step(self, number: str) -> Any:
        def work(settings: Settings, done: demo.Notes) -> dict[str, Any]:
            self.did.append(number)
            outcome = self.outcomes.pop(0) if number == "2" else "promoted"
            if outcome == "killed":
                raise KeyboardInterrupt
            return {"outcome": outcome, "lines": [f"{number}: {outcome}"]}

        return work


def test_an_interrupted_demo_goes_on_where_it_was_and_a_finished_one_does_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played(monkeypatch, ["killed", "unchanged"])
    with pytest.raises(KeyboardInterrupt):
        demo.run(settings)
    demo.run(settings)
    assert played.did == ["1", "2", "2", "3"]
    demo.run(settings)
    assert played.did == ["1", "2", "2", "3"]
    assert played.readied == 4  # none for what is only shown


def test_a_step_with_another_outcome_is_an_error_and_not_done(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(monkeypatch, ["refused", "promoted"])
    with pytest.raises(TandemError, match="step 2 ended as refused, where promoted or unchanged was expected"):
        demo.run(settings)
    assert played.did == ["1", "2"]
    demo.run(settings)
    assert played.did == ["1", "2", "2", "3"]
