"""Judge, refuse, commit and the alias, with a real MLflow on SQLite and a real ledger and store."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from workspace import candidate_of, settings_of, write_adapter, write_documents, write_evaluation, write_workspace

from flows import ledger, promotion, registry, tracking
from flows.candidate import as_release
from flows.ledger import Entry
from flows.settings import Settings, prepare
from tasks.errors import ConflictError, IntegrityError, RefusedError
from tasks.manifest import release_id
from tasks.records import read_json, write_json

# MLflow infers schemas of its own models at its import
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: making its tables takes seconds."""
    home = tmp_path_factory.mktemp("mlflow")
    tracking.client(f"sqlite:///{home / 'mlflow.db'}").search_experiments()
    return home / "mlflow.db"


@pytest.fixture
def settings(tmp_path: Path, database: Path) -> Iterator[Settings]:
    root = tmp_path / "clone"
    root.mkdir()
    write_workspace(root)
    with tiny.inside(root):
        made = settings_of(root)
        prepare(made)
        shutil.copyfile(database, made.home / "mlflow.db")
        yield made


def judged(settings: Settings) -> promotion.Judgement:
    entries = ledger.read(settings.ledger)
    champion = ledger.live(entries)
    folder = None
    if champion:
        folder = promotion.champion_evaluation(settings, champion, promotion.scratch(settings, "champion"))
    return promotion.judge(settings, candidate_of(settings.root), folder)


def promote(settings: Settings) -> Entry:
    """The whole path but for the verification."""
    judgement = judged(settings)
    assert judgement.verdict.accepted, judgement.verdict.reasons
    evidence = promotion.seal(settings, candidate_of(settings.root), judgement)
    with tracking.flow_run(settings, "release", {}) as run_id:
        version = promotion.register(settings, judgement, run_id)
        entry = promotion.commit(settings, judgement, version, evidence, {"mlflow": run_id})
    promotion.follow_ledger(settings)
    return entry


def refuse(settings: Settings) -> Entry:
    judgement = judged(settings)
    assert not judgement.verdict.accepted
    evidence = promotion.seal(settings, candidate_of(settings.root), judgement)
    return promotion.refuse(settings, judgement, evidence, {})


def test_a_first_release_then_a_fresher_one(settings: Settings) -> None:
    first = promote(settings)
    assert (first.action, first.number, first.version, first.sequence) == ("promote", 1, 1, 1)
    assert registry.champion_version(settings) == 1
    write_documents(settings.root, {"page-1": "new"})
    second = promote(settings)
    assert (second.number, second.version, second.sequence) == (2, 2, 2)
    assert registry.champion_version(settings) == 2
    assert promotion.follow_ledger(settings) is None
    tags = tracking.client(settings.tracking_uri).get_model_version("assistant", "2").tags
    assert (tags["release"], tags["number"], tags["ledger"], tags["arm"]) == (second.release, "2", "2", "rag+lora")


def test_registering_a_release_does_not_end_the_flows_run(settings: Settings) -> None:
    with tracking.flow_run(settings, "release", {}) as run_id:
        promotion.register(settings, judged(settings), run_id)
        assert tracking.client(settings.tracking_uri).get_run(run_id).info.status == "RUNNING"
    assert tracking.client(settings.tracking_uri).get_run(run_id).info.status == "FINISHED"


def test_a_release_is_registered_once_however_often_it_is_tried(settings: Settings) -> None:
    with tracking.flow_run(settings, "release", {}) as run_id:
        assert [promotion.register(settings, judged(settings), run_id) for _ in range(2)] == [1, 1]


def test_what_already_is_live_is_known_as_such(settings: Settings) -> None:
    assert not promotion.unchanged(settings, candidate_of(settings.root))
    promote(settings)
    assert promotion.unchanged(settings, candidate_of(settings.root))
    assert judged(settings).already_live
    write_adapter(settings.root, 2.0)
    assert not promotion.unchanged(settings, candidate_of(settings.root))


def test_another_adapter_on_the_same_corpus_has_to_be_better(settings: Settings) -> None:
    promote(settings)
    write_adapter(settings.root, 2.0)
    assert not judged(settings).verdict.accepted
    entry = refuse(settings)
    assert (entry.action, entry.number, entry.version, entry.candidate) == ("refuse", 1, 1, judged(settings).release_id)
    assert ledger.live(ledger.read(settings.ledger)) == entry
    assert registry.champion_version(settings) == 1


def test_the_same_refusal_is_recorded_once(settings: Settings) -> None:
    promote(settings)
    write_adapter(settings.root, 2.0)
    assert refuse(settings) == refuse(settings)
    write_adapter(settings.root, 3.0)
    refuse(settings)
    assert [entry.action for entry in ledger.read(settings.ledger)] == ["promote", "refuse", "refuse"]


def test_the_same_refusal_measured_again_at_another_speed_is_still_the_same(settings: Settings) -> None:
    promote(settings)
    write_adapter(settings.root, 2.0)
    refuse(settings)
    report = read_json(settings.root / "data/evaluation/report.json")
    report["arms"]["rag"] = report["arms"]["rag"] | {"latency_p50": 0.123}
    write_json(settings.root / "data/evaluation/report.json", report)
    refuse(settings)
    assert [entry.action for entry in ledger.read(settings.ledger)] == ["promote", "refuse"]


def test_a_first_candidate_can_be_refused_and_then_nothing_is_live(settings: Settings) -> None:
    tiny.change_params(settings.root, "gate.yaml", {"floors": {"fact": 0.9}})
    write_evaluation(settings.root, fact=0.5)
    entry = refuse(settings)
    assert (entry.release, entry.number, entry.version) == (None, None, None)
    assert ledger.live(ledger.read(settings.ledger)) is None
    assert promotion.follow_ledger(settings) is None


def test_two_that_judged_against_the_same_champion_cannot_both_win(settings: Settings) -> None:
    promote(settings)
    write_documents(settings.root, {"page-1": "slow"})
    slow = judged(settings)
    evidence = promotion.seal(settings, candidate_of(settings.root), slow)
    write_documents(settings.root, {"page-1": "fast"})
    fast = promote(settings)
    with pytest.raises(ConflictError, match=r"now at entry 2 \(you judged against 1\)"):
        promotion.commit(settings, slow, 3, evidence, {})
    assert ledger.read(settings.ledger)[-1] == fast


def test_a_champion_and_its_answers_come_together_or_not_at_all(settings: Settings) -> None:
    with pytest.raises(ValueError, match="measure it first"):
        promotion.judge(settings, candidate_of(settings.root), settings.root / "data/evaluation")
    promote(settings)
    with pytest.raises(ValueError, match="measure it first"):
        promotion.judge(settings, candidate_of(settings.root), None)


def test_an_alias_that_lags_behind_is_moved_and_a_deleted_one_set_again(settings: Settings) -> None:
    promote(settings)
    write_documents(settings.root, {"page-1": "new"})
    promote(settings)
    registry.move_alias(settings, 1)
    assert promotion.follow_ledger(settings) == "alias champion moved to version 2"
    tracking.client(settings.tracking_uri).delete_registered_model_alias("assistant", "champion")
    assert promotion.follow_ledger(settings) == "alias champion moved to version 2"
    assert registry.champion_version(settings) == 2


def test_an_alias_on_a_version_of_no_entry_is_refused_with_the_command_that_mends_it(settings: Settings) -> None:
    promote(settings)
    mlflow = tracking.client(settings.tracking_uri)
    version = mlflow.get_model_version("assistant", "1")
    foreign = mlflow.create_model_version("assistant", version.source, version.run_id)
    mlflow.set_registered_model_alias("assistant", "champion", foreign.version)
    with pytest.raises(IntegrityError, match=r"moved by hand to version 2.*release 1 is live.*tandem doctor --mend"):
        promotion.follow_ledger(settings)
    assert registry.champion_version(settings) == 2


def test_what_a_person_rolled_back_from_does_not_come_back_by_itself(settings: Settings) -> None:
    first = promote(settings)
    write_documents(settings.root, {"page-1": "wrong prices"})
    second = promote(settings)
    back = second.model_dump(include=set(ledger.Draft.model_fields)) | {
        "action": "rollback", "release": first.release, "number": 1, "version": 1, "why": "wrong prices", "evidence": {},
    }  # fmt: skip
    ledger.append(settings.ledger, ledger.Draft.model_validate(back), 2)
    again = judged(settings)
    assert again.release_id == second.release
    with pytest.raises(RefusedError, match=r"rolled back from by a test \(ledger entry 3: wrong prices\)"):
        promotion.check_not_withdrawn(settings, again)
    write_documents(settings.root, {"page-1": "right prices"})
    promotion.check_not_withdrawn(settings, judged(settings))


def test_the_sealed_evidence_is_what_the_champion_is_judged_by_later(settings: Settings) -> None:
    entry = promote(settings)
    report = (settings.root / "data/evaluation/report.json").read_bytes()
    write_evaluation(settings.root, fact=0.0)
    folder = promotion.champion_evaluation(settings, entry, promotion.scratch(settings, "champion"))
    assert (folder / "report.json").read_bytes() == report
    assert promotion.sealed_json(settings, entry.evidence["documents"])["page-1"] == "a"
    assert entry.release == release_id(as_release(candidate_of(settings.root), "rag+lora"))
