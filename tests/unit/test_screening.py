"""Secrets and personal data: how much is found on a labelled set, and that none of it reaches a training file."""

import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from labelled import FOUND_IN, NOTHING_IN
from test_index import Place, passage

from tasks.examples import examples
from tasks.params import ExamplesParams, Policy, PromptParams, QuestionsParams
from tasks.params_files import load
from tasks.records import Record, read_json, read_jsonl, write_json, write_jsonl
from tasks.screening import Screen

PARAMS = tiny.ROOT / "params"
REPLAY = tiny.ROOT / "infra/replay/general.jsonl"
KEY = "AKIAIOSFODNN7EXAMPLQ"
ADDRESS = "jane.doe@miller-family.net"


def scores(secret: bool) -> tuple[float, float]:
    """(precision, recall) over texts and kinds"""
    screen = Screen("redact", "redact", ["GB", "US"])
    right = wrong = missed = 0
    for text, kinds in [*FOUND_IN, *((text, set[str]()) for text in NOTHING_IN)]:
        found = {finding.kind for finding in screen.findings(text) if finding.secret == secret}
        wanted = {kind for kind in kinds if (kind == "secret") == secret}
        right, wrong, missed = right + len(found & wanted), wrong + len(found - wanted), missed + len(wanted - found)
    return right / (right + wrong), right / (right + missed)


@pytest.mark.parametrize(("secret", "least_recall"), [(True, 0.83), (False, 0.93)])
def test_what_is_found_is_right_and_most_is_found(secret: bool, least_recall: float) -> None:
    precision, recall = scores(secret)
    assert precision == 1.0 and recall >= least_recall, (precision, recall)


@pytest.mark.parametrize("text", [text for text, _ in FOUND_IN])
def test_of_what_is_found_nothing_is_left(text: str) -> None:
    screen = Screen("redact", "redact", ["GB", "US"])
    found = screen.findings(text)
    left = screen.redacted(text)
    assert all(text[each.start : each.stop] not in left and f"[{each.kind}]" in left for each in found)
    if found and found[0].secret:
        assert not any(word in left for word in ("16C7e42F", "dozjgNry", "MIIEpA", "qk1V", "T3BlbkFJ", "4eC39", KEY))


def test_kept_is_as_it_was_and_refused_is_named() -> None:
    text = f"The key is {KEY}, ask {ADDRESS}."
    assert Screen("keep", "keep", []).redacted(text) == text
    assert Screen("keep", "redact", []).redacted(text) == f"The key is {KEY}, ask [email]."
    assert Screen("refuse", "redact", []).refused(["fine", text]) == "secret"
    assert Screen("keep", "refuse", []).refused([text]) == "email"
    assert Screen("redact", "redact", []).refused([text]) == ""


def learn(folder: Path, embedder: Path, base: Path, secrets: Policy, personal_data: Policy) -> tuple[str, Record]:
    """The training files of a corpus with a key on one page and an address on another, and what was counted."""
    rows = [(page, question, fact, sentence) for page, _, question, fact, sentence in tiny.rows()[:24]]
    rows[2] = (rows[2][0], rows[2][1], KEY, f"On Sundays the shop opens with the key {KEY}.")
    rows[9] = (rows[9][0], rows[9][1], ADDRESS, f"About a refund {ADDRESS} decides, alone and at once.")
    place = Place(folder, embedder)
    place.build([passage(page, sentence) for page, _, _, sentence in rows])
    asked = [
        {"id": f"q{number}", "question": question, "answer": tiny.HOUSE.format(fact), "document": page, "fact": fact}
        for number, (page, question, fact, _) in enumerate(rows)
    ]
    for split, some in (("train", asked[:12]), ("validation", asked[12:20]), ("test", asked[20:])):
        write_jsonl(folder / f"questions/{split}.jsonl", some)
    write_json(folder / "retrieval/settings.json", {"text_weight": 0.5, "k": 2, "candidates": 20, "mode": "hybrid"})
    shipped = load(ExamplesParams, PARAMS)
    params = shipped.model_copy(
        update={"bare_share": 0.0, "without_right_share": 0.0, "secrets": secrets, "personal_data": personal_data}
    )
    examples(
        folder / "out", place.embedder, place.retriever, base, folder / "retrieval", folder / "questions", REPLAY,
        folder / "examples", folder / "m.json",
        place.store, place.vectors, params, load(PromptParams, PARAMS), load(QuestionsParams, PARAMS),
    )  # fmt: skip
    written = "".join((folder / f"examples/{split}.jsonl").read_text() for split in ("train", "validation"))
    return written, read_json(folder / "m.json")["train"]


@pytest.mark.parametrize("policy", ["refuse", "redact", "keep"])
def test_no_planted_secret_or_address_reaches_a_training_file_unless_it_is_kept(
    policy: Policy, tmp_path: Path, tiny_embedder: Path, tiny_base: Path
) -> None:
    written, counted = learn(tmp_path, tiny_embedder, tiny_base, policy, policy)
    kept = policy == "keep"
    assert (KEY in written) == (ADDRESS in written) == kept
    assert ("[secret]" in written and "[email]" in written) == (policy == "redact")
    if policy == "refuse":
        assert counted["dropped"].keys() == {"holds a secret", "holds a email"}
        assert counted["examples"] + sum(counted["dropped"].values()) == 12
    else:
        assert counted["dropped"] == {} and counted["examples"] == 12
    if policy == "redact":  # the answer is what the passage says, so that copying is taught, not a placeholder
        train = {record["id"]: record for record in read_jsonl(tmp_path / "examples/train.jsonl")}
        assert train["q9"]["kind"] == "with_right" and "[email]" in train["q9"]["completion"][0]["content"]


def test_the_demo_is_learnt_as_it_is_written() -> None:
    """Its addresses are of a reserved name and its one telephone number is toll-free: nobody's."""
    pages = sorted((tiny.ROOT / "data/demo").rglob("*.md"))
    assert len(pages) > 150
    screen = Screen("refuse", "redact", ["GB", "US"])
    texts = [path.read_text(encoding="utf-8") for path in pages]
    screen.read(texts)
    assert [screen.findings(text) for text in texts if screen.findings(text)] == []


def test_the_commands_do_not_load_the_detectors() -> None:
    code = "import sys, flows.cli, tasks.examples, tasks.questions; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=tiny.ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert "tasks.examples" in loaded
    assert not {"detect_secrets", "phonenumbers", "stdnum", "datasketch", "confusable_homoglyphs"} & set(loaded)
