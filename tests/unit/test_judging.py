"""A language model as judge, played by a server of our own that speaks OpenAI's chat format."""

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tiny
from judging import judged
from sklearn.metrics import cohen_kappa_score
from test_page import said
from workspace import candidate_of, write_workspace

from flows.checks import check_params
from flows.judging import read_labels, with_opinion
from flows.settings import Settings
from tasks.agreement import agreement
from tasks.errors import InputError
from tasks.page import page
from tasks.params_files import load
from tasks.params_verdict import JudgeParams
from tasks.records import Record, read_json, read_jsonl, write_jsonl

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")  # MLflow's own models


@dataclass
class Stub:
    """Says yes where the answer holds `right`; counts what it was asked."""

    right: str = "x q1"
    says: str = ""  # this instead
    asked: list[str] = field(default_factory=list)

    def reply(self, prompt: str) -> str:
        self.asked.append(prompt)
        answer = prompt.partition("<document>")[2].partition("</document>")[0]
        return self.says or json.dumps({"result": "yes" if self.right in answer else "no", "rationale": "so it is"})


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    played = Stub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            message = {"role": "assistant", "content": played.reply(asked["messages"][-1]["content"])}
            body = {"id": "1", "object": "chat.completion", "created": 1, "model": asked["model"],
                    "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}  # fmt: skip
            told = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_API_BASE", f"http://127.0.0.1:{server.server_port}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    yield played
    server.shutdown()
    server.server_close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    root = tmp_path / "clone"
    root.mkdir()
    found = write_workspace(root)
    tiny.change_params(root, "judge.yaml", {"model": "openai:/stub", "questions": 3})
    tiny.change_params(root, "evaluate.yaml", {"resamples": 200})
    return found


def opinion(settings: Settings) -> Record:
    return dict(read_json(with_opinion(settings, candidate_of(settings.root)).curves["judge"]))


def test_the_judge_is_asked_each_answer_once_and_what_it_said_is_kept(settings: Settings, stub: Stub) -> None:
    found = opinion(settings)
    answers = {(record["question"], record["answer"]) for record in read_jsonl(settings.root / "data/evaluation/answers.jsonl")}
    assert len(stub.asked) == 3 and len(answers) == 12  # the four arms say the same
    assert (
        found["model"] == "openai:/stub"
        and found["questions"] == 3
        and set(found["arms"]) == {"prompt", "rag", "lora", "rag+lora"}
    )
    assert found["arms"]["rag"]["n"] == 3 and found["people"] is None
    assert opinion(settings) == found and len(stub.asked) == 3
    text = said(page(judged(judge=found)))
    assert "openai:/stub judged the answers to 3 test questions" in text and "No labels by people are known" in text


def test_its_agreement_with_people_is_told(settings: Settings, stub: Stub) -> None:
    stub.right = "right"
    rows = [("right", True)] * 20 + [("right too", False)] * 4 + [("wrong", False)] * 14 + [("false", True)] * 2
    labels = [{"question": f"Q{place}?", "answer": f"{answer} {place}", "reference": "It is so.", "right": judgement}
              for place, (answer, judgement) in enumerate(rows)]  # fmt: skip
    write_jsonl(settings.root / "labels.jsonl", labels)
    tiny.change_params(settings.root, "judge.yaml", {"labels": "labels.jsonl"})
    people = opinion(settings)["people"]
    assert people["n"] == 40 and people["agree"] == pytest.approx(34 / 40)
    assert people["low"] < people["kappa"] < people["high"]
    judge, truth = [answer.startswith("right") for answer, _ in rows], [judgement for _, judgement in rows]
    assert people["kappa"] == pytest.approx(cohen_kappa_score(judge, truth))
    text = said(page(judged(judge=opinion(settings))))
    assert f"With people (40 labels): alike for 85%, Cohen's kappa {people['kappa']:.2f} (" in text


def test_without_a_judge_nobody_is_asked(settings: Settings, stub: Stub) -> None:
    tiny.change_params(settings.root, "judge.yaml", {"model": ""})
    assert "judge" not in with_opinion(settings, candidate_of(settings.root)).curves
    assert stub.asked == []


def test_a_judge_that_nobody_reaches_is_told_of_and_stops_nothing(
    settings: Settings, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OPENAI_API_BASE", f"http://127.0.0.1:{free.getsockname()[1]}/v1")
        failed = opinion(settings)
    assert "refused" in failed["error"]
    assert "openai:/stub could not be asked: " in said(page(judged(judge=failed)))


def test_a_judge_that_talks_is_told_of_and_asked_again_next_time(settings: Settings, stub: Stub) -> None:
    stub.says = json.dumps({"result": "perhaps", "rationale": ""})
    assert "was asked for yes or no and said 'unknown'" in opinion(settings)["error"]
    stub.says = ""
    assert "error" not in opinion(settings)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"question": "Q", "answer": "A", "reference": "R", "right": "yes"}', "label 1: question, answer and reference"),
        ('{"question": "Q", "answer": "A", "right": true}', "label 1"),
        ("{", "labels.jsonl:1: not valid JSON"),
        (None, "labels: there is no file"),
    ],
)
def test_labels_that_are_none_are_refused_before_anything_runs(settings: Settings, line: str | None, words: str) -> None:
    if line is not None:
        (settings.root / "labels.jsonl").write_text(line + "\n")
    tiny.change_params(settings.root, "judge.yaml", {"labels": "labels.jsonl"})
    with pytest.raises(InputError) as found:
        read_labels(settings.root, load(JudgeParams, settings.root / "params"))
    assert words in str(found.value)
    with pytest.raises(InputError) as found:
        check_params(settings.root / "params")
    assert words in str(found.value)


def test_a_judge_that_is_no_name_of_mlflows_is_refused(settings: Settings) -> None:
    tiny.change_params(settings.root, "judge.yaml", {"model": "gpt"})
    with pytest.raises(InputError, match=r"judge\.yaml(.|\n)*model"):
        load(JudgeParams, settings.root / "params")


def test_agreement_is_that_of_scikit_learn_and_its_interval_covers_what_is_true() -> None:
    random, covered = np.random.default_rng(1), 0
    for _ in range(60):
        truth = random.random(80) < 0.5
        judge = np.where(random.random(80) < 0.8, truth, ~truth)  # kappa 0.6
        found = agreement(judge.tolist(), truth.tolist(), [f"p{n}" for n in range(80)], 0.95, 300, 1)
        assert found["kappa"] == pytest.approx(cohen_kappa_score(judge, truth))
        covered += found["low"] <= 0.6 <= found["high"]
    assert covered >= 51  # 57 expected; fewer has a chance below one in a hundred


def test_agreement_with_somebody_who_always_says_the_same_is_not_defined() -> None:
    found = agreement([True, True], [True, True], ["a", "b"], 0.95, 100, 1)
    assert found == {"n": 2, "agree": 1.0, "kappa": None}
    assert "is not defined" in said(
        page(judged(judge={"model": "m", "questions": 1, "arms": {}, "facts": found, "people": None}))
    )
