"""Judge, refuse, commit and the alias, with a real MLflow on SQLite and a real ledger and store."""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
import tiny
from workspace import (
    adopt_reranker,
    candidate_of,
    change,
    judged,
    settings_of,
    tune_query_encoder,
    write_adapter,
    write_documents,
    write_evaluation,
    write_workspace,
)  # fmt: skip

from flows import doctor, housekeeping, ledger, opening, promotion, registry, tracking
from flows.candidate import as_release
from flows.ledger import Entry
from flows.lock import exclusive
from flows.looks import earlier_looks
from flows.settings import Settings, prepare
from flows.status import status
from flows.store import open_file, seal_folder
from flows.succession import succession
from tasks.assistant import Pieces
from tasks.errors import ConflictError, InputError, IntegrityError, RefusedError
from tasks.manifest import Release, load_release, release_id, render
from tasks.records import folder_digest, read_json, write_json
from tasks.reports import load_report

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
    return promotion.refuse(settings, judgement, judgement.verdict.reasons, evidence, {})


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


def test_a_release_pins_its_query_encoder_and_one_without_is_asked_without(settings: Settings) -> None:
    first = promote(settings)
    tune_query_encoder(settings.root, 3.0)
    write_documents(settings.root, {"page-1": "new"})
    second = promote(settings)
    release = load_release(opening.manifest_text(settings, str(second.release)))
    pinned = folder_digest(settings.root / "data/retriever/encoder")
    assert release.query_encoder and release.query_encoder.digest == pinned
    assert housekeeping.digests(release).count(pinned) == 1
    tags = tracking.client(settings.tracking_uri).get_model_version("assistant", "2").tags
    assert tags["query encoder"] == pinned[:12]
    shutil.rmtree(settings.root / "data/retriever")  # a release stands on the store alone
    found = pieces(settings, release)
    assert found.query_encoder and folder_digest(found.query_encoder) == pinned and found.embedder != found.query_encoder
    check_damage_is_told(settings, second, release, found.query_encoder, "query encoder")
    assert pieces(settings, load_release(opening.manifest_text(settings, str(first.release)))).query_encoder is None


def test_a_release_pins_the_reranker_that_was_adopted_and_goes_on_without_once_it_is_not(settings: Settings) -> None:
    promote(settings)
    adopt_reranker(settings.root, 3.0)
    write_documents(settings.root, {"page-1": "new"})
    second = promote(settings)
    release = load_release(opening.manifest_text(settings, str(second.release)))
    digest = folder_digest(settings.root / "data/retrieval/reranker")
    assert release.reranker and release.reranker.digest == digest and release.retrieval["rerank"] == 20
    assert housekeeping.digests(release).count(digest) == 1
    assert tracking.client(settings.tracking_uri).get_model_version("assistant", "2").tags["reranker"] == digest[:12]
    shutil.rmtree(settings.root / "data/retrieval/reranker")  # a release stands on the store alone
    found = pieces(settings, release)
    assert found.reranker and folder_digest(found.reranker) == digest
    check_damage_is_told(settings, second, release, found.reranker, "reranker")
    (settings.root / "data/retrieval/reranker.json").unlink()
    write_json(settings.root / "data/retrieval/settings.json", {"text_weight": 1.0, "k": 1, "candidates": 10, "mode": "text"})
    write_documents(settings.root, {"page-1": "newer"})
    third = load_release(opening.manifest_text(settings, str(promote(settings).release)))
    assert third.reranker is None and pieces(settings, third).reranker is None


def check_damage_is_told(settings: Settings, entry: Entry, release: Release, folder: Path, what: str) -> None:
    """Where the piece is opened, and by doctor under its name."""
    damaged = next(folder.glob("*.safetensors"))
    damaged.chmod(0o600)
    damaged.write_bytes(b"torn")
    with pytest.raises(IntegrityError, match=r"model.safetensors: expected sha256"):
        pieces(settings, release)
    entries = ledger.read(settings.ledger)
    faults = doctor.release_faults(settings, entries, ledger.Found(str(entry.release), 2), doctor.Pieces(settings, entries))
    assert any(what in fault.what for fault in faults)


def pieces(settings: Settings, release: Release) -> Pieces:
    """Verified, not loaded. The workspace's embedder is a stand-in: its own digest is none of a folder's."""
    if release.embedder.digest == "e" * 64:
        sealed = seal_folder(settings.store, settings.root / "data/models/embedder")
        release = release.model_copy(update={"embedder": release.embedder.model_copy(update={"digest": sealed})})
    return opening.open_manifest(settings, render(release)).pieces


def test_registering_a_release_does_not_end_the_flows_run(settings: Settings) -> None:
    with tracking.flow_run(settings, "release", {}) as run_id:
        promotion.register(settings, judged(settings), run_id)
        assert tracking.client(settings.tracking_uri).get_run(run_id).info.status == "RUNNING"
    assert tracking.client(settings.tracking_uri).get_run(run_id).info.status == "FINISHED"


def test_a_release_is_registered_once_however_often_it_is_tried(settings: Settings) -> None:
    with tracking.flow_run(settings, "release", {}) as run_id:
        assert [promotion.register(settings, judged(settings), run_id) for _ in range(2)] == [1, 1]


def test_a_version_that_was_made_twice_as_the_first_reply_was_lost_is_one_version(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F29. As MLflow's client does where the connection breaks; with a real server: test_registry_down.py."""
    mlflow = tracking.client(settings.tracking_uri)
    for name in ("create_model_version", "delete_model_version"):
        monkeypatch.setattr(mlflow, name, twice(getattr(mlflow, name)))
    promote(settings)
    assert [(each.number, each.ledger) for each in registry.versions(settings)] == [(1, 1)]
    assert ledger.read(settings.ledger)[0].version == registry.champion_version(settings) == 1


def twice(request: Callable[..., Any]) -> Callable[..., Any]:
    def asked_again(*arguments: Any, **named: Any) -> Any:
        request(*arguments, **named)
        return request(*arguments, **named)

    return asked_again


def test_only_what_has_the_live_manifest_is_already_live(settings: Settings) -> None:
    assert not judged(settings).already_live
    promote(settings)
    assert judged(settings).already_live
    write_adapter(settings.root, 2.0)
    assert not judged(settings).already_live


def test_an_adapter_is_judged_on_its_own_merits_while_an_arm_without_one_is_live(settings: Settings) -> None:
    """Served with the champion's arm the candidate is the champion; that says nothing of the arms that it was trained for."""
    write_evaluation(settings.root, fact=0.5, cheapest="rag")
    assert promote(settings).release == release_id(as_release(candidate_of(settings.root), "rag"))
    write_adapter(settings.root, 2.0)
    write_evaluation(settings.root, fact=0.5, cheapest="rag", better=("rag+lora",))
    tiny.change_params(settings.root, "gate.yaml", {"margin": 0.1})
    judgement = judged(settings)
    assert (judgement.release.arm, judgement.already_live) == ("rag+lora", False)
    assert "Against the champion" in " ".join(judgement.verdict.reasons)


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


def test_every_judgement_by_the_same_questions_is_a_look_and_fresh_questions_start_anew(settings: Settings) -> None:
    promote(settings)
    for number in (2.0, 3.0, 3.0):
        write_adapter(settings.root, number)
        write_evaluation(settings.root, fact=1 - number / 10)
        judgement = judged(settings)
        assert judgement.verdict.look is not None and judgement.verdict.look.contest == number - 1
        refuse(settings)
    assert [entry.action for entry in ledger.read(settings.ledger)] == ["promote", "refuse", "refuse"]
    report = load_report(candidate_of(settings.root).evaluation)
    marks = earlier_looks(settings, ledger.read(settings.ledger), report)
    assert [glance.rule for glance in marks] == ["better", "better"] and len(set(marks)) == 2
    fresh = replace(report, answers=tuple(replace(answer, text=f"another {answer.text}") for answer in report.answers))
    assert earlier_looks(settings, ledger.read(settings.ledger), fresh) == []


def test_a_page_that_changed_since_the_live_release_makes_a_slice_of_its_own(settings: Settings) -> None:
    promote(settings)
    write_documents(settings.root, {"page-1": "a", "page-2": "changed", "page-3": "c", "new": "d"})
    names = {row.name: row.questions for row in judged(settings).verdict.slices}
    assert names == {"page changed": 3, "page unchanged": 9}


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
        promotion.judge(settings, candidate_of(settings.root), [], settings.root / "data/evaluation")
    promote(settings)
    with pytest.raises(ValueError, match="measure it first"):
        promotion.judge(settings, candidate_of(settings.root), ledger.read(settings.ledger), None)


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
    before = status(settings)["live"]
    done = doctor.mend(settings)
    entry = ledger.read(settings.ledger)[-1]
    assert (entry.action, entry.release, entry.who) == ("override", before["release"], "a test")
    assert entry.why == "out-of-band change: the alias champion stood at version 2, which no entry promoted; put back"
    assert f"ledger entry 2: {entry.why}" in done and registry.champion_version(settings) == 1
    assert status(settings)["live"] == before, "who made it live, and when, is as it was"
    assert promotion.follow_ledger(settings) is None and list(doctor.versions(settings)) == []
    doctor.mend(settings)
    assert ledger.read(settings.ledger)[-1] == entry, "it is told once"


def back_to(settings: Settings, entry: Entry, why: str) -> None:
    """What `tandem rollback` appends."""
    entries = ledger.read(settings.ledger)
    values = entry.model_dump(include=set(ledger.Draft.model_fields)) | {"action": "rollback", "why": why, "evidence": {}}
    ledger.append(settings.ledger, ledger.Draft.model_validate(values), len(entries))


def test_what_a_person_rolled_back_from_does_not_come_back_by_itself(settings: Settings) -> None:
    first = promote(settings)
    write_documents(settings.root, {"page-1": "wrong prices"})
    second = promote(settings)
    back_to(settings, first, "wrong prices")
    again = judged(settings)
    assert again.release_id == second.release
    with pytest.raises(RefusedError, match=r"rolled back from by a test \(ledger entry 3: wrong prices\)"):
        promotion.check_not_withdrawn(succession(again.entries).withdrawn, again.release_id)
    write_documents(settings.root, {"page-1": "right prices"})
    fresh = judged(settings)
    promotion.check_not_withdrawn(succession(fresh.entries).withdrawn, fresh.release_id)


def test_what_a_person_had_back_on_purpose_may_be_promoted_again(settings: Settings) -> None:
    first = promote(settings)
    write_documents(settings.root, {"page-1": "prices"})
    second = promote(settings)
    back_to(settings, first, "wrong prices")
    back_to(settings, second, "they were right")
    write_documents(settings.root, {"page-1": "newer"})
    promote(settings)
    write_documents(settings.root, {"page-1": "prices"})
    again = judged(settings)
    assert again.release_id == second.release and not again.already_live
    promotion.check_not_withdrawn(succession(again.entries).withdrawn, again.release_id)


def test_the_sealed_evidence_is_what_the_champion_is_judged_by_later(settings: Settings) -> None:
    entry = promote(settings)
    report = (settings.root / "data/evaluation/report.json").read_bytes()
    write_evaluation(settings.root, fact=0.0)
    folder = promotion.champion_evaluation(settings, [entry], entry, promotion.scratch(settings, "champion"))
    assert (folder / "report.json").read_bytes() == report
    assert promotion.sealed_json(settings, entry.evidence["documents"])["page-1"] == "a"
    assert entry.release == release_id(as_release(candidate_of(settings.root), "rag+lora"))


def test_what_the_champion_was_judged_by_is_sealed_with_the_judgement(settings: Settings) -> None:
    """Also where it was measured again, on questions that were not there when it was promoted."""
    promote(settings)
    write_documents(settings.root, {"page-1": "new"})
    judgement = judged(settings)
    assert judgement.champion_evaluation is not None
    change(judgement.champion_evaluation / "report.json", measured="again")
    evidence = promotion.seal(settings, candidate_of(settings.root), judgement)
    assert promotion.sealed_json(settings, evidence["champion report"])["measured"] == "again"
    assert len(open_file(settings.store, evidence["champion answers"]).splitlines()) == 48


def test_a_promotion_while_the_champion_was_measured_is_noticed(settings: Settings) -> None:
    """The ledger is read once, before the champion is measured: nobody is judged against a champion that was not."""
    first = promote(settings)
    entries = ledger.read(settings.ledger)
    folder = promotion.champion_evaluation(settings, entries, first, promotion.scratch(settings, "champion"))
    write_documents(settings.root, {"page-1": "fast"})
    promote(settings)
    write_documents(settings.root, {"page-1": "slow"})
    slow = promotion.judge(settings, candidate_of(settings.root), entries, folder)
    evidence = promotion.seal(settings, candidate_of(settings.root), slow)
    assert slow.champion == first
    for act in (
        lambda: promotion.commit(settings, slow, 3, evidence, {}),
        lambda: promotion.refuse(settings, slow, ["no"], evidence, {}),
    ):
        with pytest.raises(ConflictError, match=r"now at entry 2 \(you judged against 1\)"):
            act()


def test_a_persons_no_is_recorded_once_with_its_reason(settings: Settings) -> None:
    promote(settings)
    write_documents(settings.root, {"page-1": "new"})
    for reasons in (["a person said no: typo"], ["a person said no: typo"], ["a person said no: prices"]):
        judgement = judged(settings)
        assert judgement.verdict.accepted
        evidence = promotion.seal(settings, candidate_of(settings.root), judgement)
        promotion.refuse(settings, judgement, reasons, evidence, {})
    found = ledger.read(settings.ledger)
    assert [(entry.action, entry.number) for entry in found] == [("promote", 1), ("refuse", 1), ("refuse", 1)]
    assert [entry.why for entry in found[1:]] == ["a person said no: typo", "a person said no: prices"]


def test_a_registry_that_was_lost_is_made_again_with_the_same_tags(settings: Settings) -> None:
    promote(settings)
    write_documents(settings.root, {"page-1": "new"})
    promote(settings)
    mlflow = tracking.client(settings.tracking_uri)
    before = {number: mlflow.get_model_version("assistant", number).tags for number in ("1", "2")}
    mlflow.delete_registered_model("assistant")
    said = promotion.follow_ledger(settings)
    assert said == (
        "release 1 registered again, as version 1; release 2 registered again, as version 2; alias champion moved to version 2"
    )
    assert {number: mlflow.get_model_version("assistant", number).tags for number in ("1", "2")} == before
    assert promotion.follow_ledger(settings) is None


def test_a_registry_from_an_older_backup_gets_the_releases_that_it_lacks(settings: Settings) -> None:
    promote(settings)
    write_documents(settings.root, {"page-1": "new"})
    second = promote(settings)
    tracking.client(settings.tracking_uri).delete_model_version("assistant", "2")
    assert promotion.follow_ledger(settings) == "release 2 registered again, as version 3; alias champion moved to version 3"
    assert registry.registered_version(settings, str(second.release)) == 3  # MLflow gives no number twice: the tag tells


def test_a_ledger_that_lost_its_end_is_noticed_before_anything_follows_it(settings: Settings) -> None:
    """A chain cannot show that its newest entries are gone; the registry was told of each that moved the alias."""
    first = promote(settings)
    write_documents(settings.root, {"page-1": "new"})
    promote(settings)
    back_to(settings, first, "prices")
    promotion.follow_ledger(settings)
    last = settings.ledger / "000003.json"
    kept = last.read_bytes()
    last.unlink()
    with pytest.raises(IntegrityError, match=r"the registry knows ledger entry 3 .*ends at entry 2.*Restore them"):
        promotion.follow_ledger(settings)
    assert [each.where for each in doctor.versions(settings)] == ["ledger"]
    assert not any("alias" in done for done in doctor.mend(settings))
    assert registry.champion_version(settings) == 1
    last.write_bytes(kept)
    assert promotion.follow_ledger(settings) is None and list(doctor.versions(settings)) == []


def test_doctor_mends_lost_versions_but_not_while_a_flow_is_at_work(settings: Settings) -> None:
    promote(settings)
    write_documents(settings.root, {"page-1": "new"})
    promote(settings)
    tracking.client(settings.tracking_uri).delete_model_version("assistant", "1")
    found = list(doctor.versions(settings))
    assert [(each.what, each.mend) for each in found] == [("release 1 has no version in the registry", "tandem doctor --mend")]
    with exclusive(settings.home / "lock", "refresh"), pytest.raises(InputError, match="another refresh is running here"):
        doctor.mend(settings)
    assert "release 1 registered again, as version 3" in doctor.mend(settings)
    assert list(doctor.versions(settings)) == []


def test_a_loader_that_the_alias_leads_to_the_release_before_answers_by_the_ledger(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A promotion was killed between its ledger entry and the alias."""
    first = promote(settings)
    write_documents(settings.root, {"page-1": "new"})
    second = promote(settings)
    monkeypatch.setattr(opening, "open_manifest", lambda settings, text: release_id(load_release(text)))
    manifests = {entry.number: opening.manifest_text(settings, str(entry.release)) for entry in (first, second)}
    assert [opening.open_version(settings, text) for text in manifests.values()] == [first.release, second.release]
    registry.move_alias(settings, 1)
    assert [opening.open_version(settings, text) for text in manifests.values()] == [second.release, second.release]


def test_a_version_names_packages_that_can_be_installed_and_has_a_signature(settings: Settings) -> None:
    promote(settings)
    source = Path(mlflow_artifacts(settings, "1"))
    assert {path.name for path in source.rglob("*") if path.is_file()} == {
        "MLmodel", "conda.yaml", "pyfunc.py", "python_env.yaml", "registered_model_meta", "release.json", "requirements.txt",
    }  # fmt: skip  # no pickle, no weights
    wanted = (source / "requirements.txt").read_text().split()
    assert "tandem" not in " ".join(wanted)
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", each) for each in wanted), wanted
    assert {each.split("==")[0] for each in wanted} >= {"torch", "transformers", "peft", "lancedb", "mlflow"}
    assert "sources: Array({cited: boolean (required)" in str(mlflow.models.Model.load(source).signature.outputs)
    said = tracking.client(settings.tracking_uri).get_model_version("assistant", "1").description
    assert "in which Tandem is installed" in said and "--env-manager local" in said


def mlflow_artifacts(settings: Settings, version: str) -> str:
    return str(mlflow.artifacts.download_artifacts(f"models:/assistant/{version}", tracking_uri=settings.tracking_uri))
