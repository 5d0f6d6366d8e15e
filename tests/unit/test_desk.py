"""What a server answers from: a release taken over whole, and kept where a newer one does not load."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tiny
from releases import QUESTION, Made, Maker, promote, stand_in
from workspace import settings_of

from flows import asked, ledger, registry, serving
from flows.ledger import Draft
from flows.serving import Desk, alias_fault, answer, health
from flows.settings import Settings
from flows.store import seal_file
from tasks.errors import InputError, IntegrityError, TandemError
from tasks.golden import golden_record
from tasks.records import canonical_json
from tasks.tables import connect


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[Maker, list[Made]]:
    """Three releases, sealed; the first is live."""
    maker = Maker(tmp_path_factory.mktemp("three") / "clone")
    made = [maker.make(number) for number in (1, 2, 3)]
    promote(maker.settings, made[0], at="2026-01-01T00:00:00+00:00")
    return maker, made


@pytest.fixture
def settings(three: tuple[Maker, list[Made]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    stand_in(monkeypatch)
    root = Path(shutil.copytree(three[0].settings.root, tmp_path / "clone"))
    with tiny.inside(root):
        yield settings_of(root)


@pytest.fixture
def made(three: tuple[Maker, list[Made]]) -> list[Made]:
    return three[1]


def number(desk: Desk) -> int | None:
    return answer(desk, QUESTION, None)["number"] if desk.served else None


def test_an_answer_comes_from_the_release_that_it_names_and_why_knows_it(settings: Settings, made: list[Made]) -> None:
    desk = Desk(settings)
    given = answer(desk, QUESTION, None)
    assert (given["answer"], given["release"], given["number"], given["arm"]) == (made[0].answer, made[0].identity, 1, "rag+lora")
    assert {passage["passage"] for passage in given["passages"]} == made[0].passages
    assert [cited["number"] for cited in given["citations"]] == [1]
    told = asked.recall(asked.place(settings), given["id"])
    assert (told["answer"], told["number"]) == (made[0].answer, 1) and QUESTION in told["prompt"]


def test_a_new_release_is_taken_over_whole_and_one_glance_at_an_unchanged_ledger_does_nothing(
    settings: Settings, made: list[Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(settings)
    monkeypatch.setattr(ledger, "read", lambda folder: pytest.fail("the ledger did not change"))
    assert not desk.glance()
    monkeypatch.undo()
    stand_in(monkeypatch)
    promote(settings, made[1])
    assert number(desk) == 1
    assert desk.glance() and number(desk) == 2
    assert answer(desk, QUESTION, None)["answer"] == made[1].answer
    promote(settings, made[0], "rollback")
    assert desk.glance() and number(desk) == 1


def test_a_refusal_changes_nothing_that_is_answered(settings: Settings, made: list[Made]) -> None:
    desk = Desk(settings)
    before, entries = desk.served, ledger.read(settings.ledger)
    fields = entries[0].model_dump(include={"release", "number", "version", "who", "why", "at", "runs"})
    refusal = fields | {"action": "refuse", "candidate": made[1].identity, "evidence": {"golden": made[1].golden}}
    ledger.append(settings.ledger, Draft.model_validate(refusal), 1)
    assert not desk.glance() and desk.served is before
    assert Desk(settings).served is not None  # and a fresh start asks the release's own golden questions, not the candidate's


def flip(path: Path) -> str:
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path.name


def adapter_of(settings: Settings, made: Made) -> Path:
    assert made.release.adapter
    return settings.store / "objects" / made.release.adapter.digest


def drop_tag(settings: Settings, made: Made) -> str:
    connect(settings.index_uri).open_table(made.release.index.table).tags.delete(made.release.index.tag)
    return f"no version tagged {made.release.index.tag}"


Damage = Callable[[Settings, Made], str]
DAMAGES: dict[str, Damage] = {
    "weights": lambda settings, made: flip(adapter_of(settings, made) / "adapter_model.safetensors"),
    "a weights file that is gone": lambda settings, made: (
        shutil.rmtree(adapter_of(settings, made)) or "the folder is missing"  # type: ignore[func-returns-value]
    ),
    "manifest": lambda settings, made: flip(settings.store / "files" / made.identity),
    "golden questions": lambda settings, made: flip(settings.store / "files" / made.golden),
    "index": drop_tag,
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_newer_release_that_is_damaged_is_not_served_and_health_says_what_is_wrong(
    what: str, settings: Settings, made: list[Made], capsys: pytest.CaptureFixture[str]
) -> None:
    desk = Desk(settings)
    promote(settings, made[1])
    says = DAMAGES[what](settings, made[1])
    assert not desk.glance()
    assert (number(desk), health(desk)["status"], health(desk)["release"]["number"]) == (1, "degraded", 1)
    assert says in health(desk)["wrong"][0]
    assert "release 1" in capsys.readouterr().err
    with pytest.raises(TandemError):  # and nobody starts with it
        Desk(settings)


def test_a_release_that_does_not_answer_as_it_was_measured_is_not_served(settings: Settings, made: list[Made]) -> None:
    desk = Desk(settings)
    other = golden_record({}, [{"question": QUESTION, "answer": "something else"}])
    golden = seal_file(settings.store, canonical_json(other).encode())
    promote(settings, Made(made[1].release, golden, made[1].answer, made[1].passages))
    assert not desk.glance() and number(desk) == 1
    assert "1 of 1 golden questions are not answered as in the evaluation" in health(desk)["wrong"][0]


def test_a_release_that_was_mended_is_taken_over_at_the_next_try(
    settings: Settings, made: list[Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(settings)
    path = adapter_of(settings, made[1]) / "adapter_model.safetensors"
    whole = path.read_bytes()
    promote(settings, made[1])
    flip(path)
    assert not desk.glance()
    path.write_bytes(whole)
    assert not desk.glance() and health(desk)["wrong"], "it is not tried again at once"
    pauses = [desk.pause]
    desk.again = 0.0
    assert desk.glance() and number(desk) == 2 and health(desk)["status"] == "ok"
    promote(settings, made[2])
    flip(adapter_of(settings, made[2]) / "adapter_model.safetensors")
    for _ in range(9):
        desk.again = 0.0
        desk.glance()
        pauses.append(desk.pause)
    assert pauses[1:5] == [10, 20, 40, 80] and pauses[-1] == serving.RETRY_SECONDS[1]


def test_a_damaged_ledger_leaves_the_release_that_answers(settings: Settings, made: list[Made]) -> None:
    desk = Desk(settings)
    promote(settings, made[1])
    flip(settings.ledger / "000002.json")
    assert not desk.glance() and number(desk) == 1
    assert "000002.json" in health(desk)["wrong"][0] and "tandem doctor" in health(desk)["wrong"][0]


def test_where_the_ledger_says_that_nothing_is_live_nothing_is_answered(settings: Settings, made: list[Made]) -> None:
    desk = Desk(settings)
    entries = ledger.read(settings.ledger)
    fields = {"release": None, "number": None, "version": None, "candidate": None, "who": "ada", "why": "all of it is wrong"}
    stop = fields | {"action": "override", "at": entries[0].at, "evidence": {}, "runs": {}}
    ledger.append(settings.ledger, Draft.model_validate(stop), 1)
    assert desk.glance()
    with pytest.raises(serving.Unavailable, match="nothing is live"):
        answer(desk, QUESTION, None)
    assert (health(desk)["status"], health(desk)["release"]) == ("nothing is live", None)
    promote(settings, made[1])
    assert desk.glance() and number(desk) == 2


def test_weights_that_are_damaged_after_the_start_are_not_loaded_for_an_arm_that_was_not_asked_yet(
    settings: Settings, made: list[Made]
) -> None:
    desk = Desk(settings)
    base = settings.store / "objects" / made[0].release.base.digest / "model.safetensors"
    whole = base.read_bytes()
    flip(base)
    assert number(desk) == 1  # from what is loaded
    with pytest.raises(IntegrityError, match=r"model\.safetensors: expected sha256"):
        answer(desk, QUESTION, "rag")
    base.write_bytes(whole)
    assert answer(desk, QUESTION, "rag")["arm"] == "rag"
    with pytest.raises(InputError, match="there is no arm 'both'"):
        answer(desk, QUESTION, "both")  # type: ignore[arg-type]


def test_the_age_of_index_and_adapter_is_that_of_the_first_release_that_had_them(settings: Settings, made: list[Made]) -> None:
    promote(settings, made[1], at="2026-01-03T00:00:00+00:00")
    promote(settings, made[0], "rollback", at="2026-01-05T00:00:00+00:00")
    desk = Desk(settings)
    told = health(desk, datetime(2026, 1, 8, tzinfo=UTC))
    assert told["index"] == told["adapter"] == {"since": "2026-01-01T00:00:00+00:00", "age_seconds": 7 * 86400}
    assert told["release"]["live_since"] == "2026-01-05T00:00:00+00:00"
    (settings.store / "files" / made[1].identity).unlink()  # what an old manifest is worth to nobody any more
    assert Desk(settings).served is not None


def test_an_alias_that_is_not_the_ledgers_is_told_with_what_mends_it(
    settings: Settings, made: list[Made], mlflow_database: Path
) -> None:
    with pytest.raises(IntegrityError, match=r"database .* is gone.* tandem doctor --mend"):
        alias_fault(settings)
    settings.home.mkdir(exist_ok=True)
    shutil.copyfile(mlflow_database, settings.home / "mlflow.db")
    with pytest.raises(IntegrityError, match=r"the alias champion is gone; release 1 is live. Put it back: tandem doctor --mend"):
        alias_fault(settings)
    registry.make_registered_model(settings)
    client = registry.client(settings.tracking_uri)
    for each in (*made[:2], None):
        tags = {"release": each.identity} if each else {}
        client.create_model_version("assistant", str(settings.home), tags=tags)
    registry.move_alias(settings, 1)
    assert alias_fault(settings) == ""
    promote(settings, made[1])
    assert "stands at version 1, not yet at that of release 2: tandem doctor --mend" in alias_fault(settings)
    registry.move_alias(settings, 3)
    with pytest.raises(IntegrityError, match=r"moved by hand to version 3.*release 2 is live.*tandem doctor --mend"):
        alias_fault(settings)


def test_a_server_goes_on_where_the_registry_is_down_and_says_so(
    settings: Settings, made: list[Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(settings: Settings) -> str:
        raise ConnectionRefusedError("[Errno 111] Connection refused")

    desk = Desk(settings)
    monkeypatch.setattr(serving, "alias_fault", down)
    desk.look_at_alias()
    assert number(desk) == 1
    assert "the registry does not answer" in health(desk)["wrong"][0] and "a server cannot be reached" in health(desk)["wrong"][0]


def test_an_answer_is_given_also_while_another_process_holds_the_log_of_answers(
    settings: Settings, made: list[Made], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    desk = Desk(settings)
    kept = answer(desk, QUESTION, None)["id"]
    monkeypatch.setattr(asked, "BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(asked.place(settings), isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        given = answer(desk, QUESTION, None)
        assert (given["answer"], given["id"]) == (made[0].answer, None)
        assert "`tandem why` will not know this answer: database is locked" in capsys.readouterr().err
    assert asked.recall(asked.place(settings), kept)["answer"] == made[0].answer
