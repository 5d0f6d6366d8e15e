"""`tandem report`: which judgement a name means, what its page rests on, and what is said where that is gone."""

import json
import re
from pathlib import Path

import pytest
import tiny
from workspace import candidate_of, judged, write_documents, write_evaluation, write_workspace

from flows import promotion, reporting
from flows.cli import run
from flows.ledger import Entry
from flows.settings import Settings
from flows.store import open_file
from tasks.errors import InputError, IntegrityError
from tasks.page import page
from tasks.records import read_json, write_json


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    root = tmp_path / "clone"
    root.mkdir()
    return write_workspace(root)


def decided(settings: Settings) -> Entry:
    """The judgement on what stands in the workspace, in the ledger; without a registry."""
    judgement = judged(settings)
    evidence = promotion.seal(settings, candidate_of(settings.root), judgement)
    if not judgement.verdict.accepted:
        return promotion.refuse(settings, judgement, judgement.verdict.reasons, evidence, {})
    return promotion.commit(settings, judgement, len(judgement.entries) + 1, evidence, {})


@pytest.fixture
def three(settings: Settings) -> list[Entry]:
    """Release 1, release 2 with another page, and a candidate that is refused."""
    first = decided(settings)
    write_documents(settings.root, {"page-1": "a", "page-2": "other words", "page-3": "c", "page-5": "d"})
    second = decided(settings)
    write_documents(settings.root, {"page-1": "a"})
    write_evaluation(settings.root, fact=0.0)
    third = decided(settings)
    assert [entry.action for entry in (first, second, third)] == ["promote", "promote", "refuse"]
    return [first, second, third]


def named(settings: Settings, name: str | None) -> str:
    return str(reporting.report(settings, name, None)["name"])


def test_a_release_is_named_by_number_and_id_and_a_refusal_by_its_candidate(settings: Settings, three: list[Entry]) -> None:
    candidate = str(three[2].candidate)
    assert named(settings, None) == f"Candidate {candidate[:12]}"
    assert named(settings, "seq:3") == named(settings, candidate[:6]) == f"Candidate {candidate[:12]}"
    assert named(settings, "1") == named(settings, str(three[0].release)[:8]) == "Release 1"
    assert named(settings, "2") == "Release 2"


def test_the_page_tells_what_changed_since_the_champion_of_its_time(settings: Settings, three: list[Entry]) -> None:
    case = reporting.of_entry(settings, three, three[1])
    assert (case.champion, case.champion_arm, len(case.champion_answers)) == ("release 1", "rag+lora", 48)
    assert case.changes["documents"] == {"changed": ["page-2"], "added": [], "removed": [], "renamed": {"page-4": "page-5"}}
    assert reporting.of_entry(settings, three, three[0]).champion is None
    assert reporting.of_entry(settings, three, three[2]).champion == "release 2"


def test_the_curves_are_evidence_where_they_were_measured(settings: Settings) -> None:
    write_json(settings.root / "data/metrics/adapter.json", {"curve": [{"step": 1, "validation_loss": 2.0}]})
    entry = decided(settings)
    case = reporting.of_entry(settings, [entry], entry)
    assert case.training == {"curve": [{"step": 1, "validation_loss": 2.0}]}
    assert case.retrieval is None
    assert "Training of the adapter" in page(case)
    assert "training" not in candidate_of(settings.root).with_adapter(settings.root, settings.root).curves


def test_the_page_of_a_judgement_that_was_just_made_is_the_one_of_the_ledger(settings: Settings) -> None:
    judgement = judged(settings)
    pieces = promotion.pieces(settings, candidate_of(settings.root), judgement)
    fresh = reporting.of_verdict(settings, judgement.entries, judgement.release, pieces, promotion.now())
    entry = decided(settings)
    kept = reporting.of_entry(settings, [entry], entry)
    assert (fresh.outcome, kept.outcome) == ("accepted", "promoted")
    said = [re.sub(r"[0-9]+ [A-Z][a-z]+ 20[0-9]{2}, [0-9:]+ UTC", "", page(case)) for case in (fresh, kept)]
    assert said[0].replace("accepted by the gate", "promoted").replace("accepted", "promoted") == said[1].replace(
        "was promoted", "is promoted"
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [("7", "there is no release 7; the nearest: 2"), ("beef", "there is no release beef"), ("../x", "names no release"),
     ("seq:9", "there is no ledger entry 9")],
)  # fmt: skip
def test_a_release_that_nobody_knows_is_bad_usage(settings: Settings, three: list[Entry], name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        reporting.report(settings, name, None)


def test_without_a_judgement_there_is_nothing_to_report(settings: Settings) -> None:
    with pytest.raises(InputError, match="nothing has been judged yet; make a release: tandem release"):
        reporting.report(settings, None, None)


def test_evidence_that_is_gone_or_damaged_is_said_to_be(settings: Settings, three: list[Entry]) -> None:
    answers = settings.store / "files" / three[0].evidence["answers"]
    answers.chmod(0o600)
    answers.write_text("{}")
    with pytest.raises(IntegrityError, match="is damaged: expected sha256"):
        reporting.report(settings, "1", None)
    answers.unlink()
    with pytest.raises(InputError, match="the evidence of ledger entry 1 is gone: answers "):
        reporting.report(settings, "1", None)


def test_the_command_writes_a_private_file_and_names_it(
    settings: Settings, three: list[Entry], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tiny.inside(settings.root):
        assert run(["report", "2", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert run(["report", "--output", str(tmp_path / "mine.html")]) == 0
        assert run(["report", "99"]) == 2
        assert run(["report", "--output", str(tmp_path)]) == 2
    assert found["file"] == str(settings.home / "reports/release-2.html")
    assert Path(found["file"]).stat().st_mode & 0o777 == 0o600
    assert "Release 2 was promoted" in Path(found["file"]).read_text(encoding="utf-8")
    assert "; release 2 stays live." in (tmp_path / "mine.html").read_text(encoding="utf-8")


def test_a_release_is_sealed_with_its_card_and_sealing_twice_gives_the_same(settings: Settings) -> None:
    judgement = judged(settings)
    twice = [promotion.seal(settings, candidate_of(settings.root), judgement) for _ in range(2)]
    assert twice[0] == twice[1]
    text = open_file(settings.store, twice[0]["card"]).decode()
    assert text.startswith("---\n") and "# Release 1 of `tandem`" in text


def test_the_command_says_what_every_arm_scores_and_costs(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    path = settings.root / "data/evaluation/report.json"
    found = read_json(path)
    found["arms"] = {arm: values | {"thousand": {"prompt_tokens": 9000.0}} for arm, values in found["arms"].items()}
    found["arms"]["rag"]["metrics"] = {"rule greets": {"mean": 0.25, "low": 0.1, "high": 0.4, "n": 12}}
    write_json(path, found)
    decided(settings)
    with tiny.inside(settings.root):
        assert run(["report"]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["prompt", "rag", "lora", "rag+lora"] in table
    assert ["rule", "greets", "–", "0.25", "(0.10-0.40)", "–", "–"] in table
    assert ["1,000", "answers:", "tokens", "read", *["9,000"] * 4, "counted"] in table
