"""Pages out of a real LanceDB table: unfindable at once by a filter, and gone from the files after a rewriting."""

import time
from pathlib import Path
from typing import Any

import pytest
from dying import die_in, returncode_of
from hashing import vectors_of
from hypothesis import given, settings
from hypothesis import strategies as st
from test_index_faults import PARAMS, Place

import tasks.rewriting
from tasks.records import Record, value_digest
from tasks.rewriting import Form, amended_manifest, drop_orphans, ever_held, names_table, orphans, pages_of, rewrite
from tasks.search import Index, open_version
from tasks.tables import connect, only_writer, open_table, tags
from tasks.upkeep import keep_versions

ODD = "it's 100% \"odd\"\n-- 'x' OR '1'='1"
SECRET = "Zanzibarquokka sleeps in the secret garden."
GRACE = 0.1  # seconds
NAME = st.text(st.sampled_from("'\"%_\n\\;()-aé𝄞 ") | st.characters(codec="utf-8"), min_size=1, max_size=20)


def row(document: str, text: str) -> Record:
    body = {"document": document, "heading": document[:9], "text": text, "embedded": f"{document[:9]}\n{text}"}
    return body | {"id": value_digest([document, text])}


def corpus(start: int, stop: int) -> list[Record]:
    return [row(f"page-{number}", f"The van number {number} leaves at {number} past five.") for number in range(start, stop)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def three(place: Place) -> list[dict[str, Any]]:
    """Three releases; the first two hold the page, the third shares files with them."""
    held = row(ODD, SECRET)
    return [place.build(rows)[0] for rows in ([*corpus(0, 60), held], [*corpus(5, 65), held], corpus(5, 66))]


def bytes_of(place: Place) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(Path(place.store).rglob("*")) if path.is_file())


def erase(place: Place, manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    forms = [Form(each["tag"], amended_manifest(place.store, each, [ODD])) for each in manifests]
    with only_writer(place.store):
        rewrite(place.store, manifests[0]["table"], forms, [ODD], PARAMS, place.model)
    return [form.manifest for form in forms]


def prune(place: Place, kept: list[dict[str, Any]]) -> None:
    time.sleep(2 * GRACE)
    with only_writer(place.store):
        keep_versions(place.store, {kept[0]["table"]: [each["tag"] for each in kept]}, GRACE)
        drop_orphans(place.store)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_a_hidden_page_is_found_by_no_leg_and_no_fusion_of_them(place: Place, weight: float) -> None:
    searcher = Index(place.store, three(place)[0], place.model)
    asked = {"candidates": 50, "k": 50, "text_weight": weight}
    assert ODD in [hit["document"] for hit in searcher.search(SECRET, asked)]
    searcher.hide(lambda page: page == ODD)
    found = [hit["document"] for hit in searcher.search(SECRET, asked)]
    assert ODD not in found and (len(found) > 10 or weight == 1.0)
    assert ODD not in [each["document"] for each in searcher.passages()]
    assert ODD not in [passage["document"] for passage in searcher.legs("Zanzibarquokka", 50)[2].values()]
    searcher.hide(lambda page: False)
    assert ODD in [hit["document"] for hit in searcher.search(SECRET, asked)]


@settings(max_examples=8)
@given(names=st.lists(NAME, min_size=2, max_size=6, unique=True))
def test_exactly_the_hidden_pages_are_missing_whatever_they_are_called(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    place = Place(tmp_path_factory.mktemp("names"))
    manifest, _ = place.build([row(name, f"The quokka of place {at} sleeps.") for at, name in enumerate(names)])
    searcher = Index(place.store, manifest, place.model)
    hidden = set(names[: len(names) // 2])
    searcher.hide(hidden.__contains__)
    for weight in (0.0, 1.0):
        found = searcher.search("quokka sleeps", {"candidates": 20, "k": 20, "text_weight": weight})
        assert {hit["document"] for hit in found} == set(names) - hidden
    assert {each["document"] for each in pages_of(place.store, manifest, sorted(hidden))} == hidden


def test_after_a_rewriting_no_byte_of_the_page_is_left_and_every_release_answers_as_if_it_had_never_been(
    place: Place, tmp_path: Path
) -> None:
    made = three(place)
    assert SECRET.encode() in bytes_of(place) and ever_held(place.store, made[0]["table"], [ODD])
    amended = erase(place, made)
    prune(place, amended)
    assert SECRET.encode() not in bytes_of(place) and b"100%" not in bytes_of(place)
    assert not ever_held(place.store, made[0]["table"], [ODD]) and orphans(place.store) == []
    assert [each["rows"] for each in amended] == [60, 60, 61] and amended[2]["tag"] == made[2]["tag"]
    fresh = Place(tmp_path / "fresh")
    for each, rows in zip(amended, (corpus(0, 60), corpus(5, 65), corpus(5, 66)), strict=True):
        scratch, _ = fresh.build(rows)
        assert scratch == each
        assert answers(place, each) == answers(fresh, scratch)


def answers(place: Place, manifest: dict[str, Any]) -> list[Any]:
    searcher = Index(place.store, manifest, place.model)
    asked = [("van number 31", 0.5), ("leaves at 40 past", 0.0), ("secret garden van", 1.0)]
    return [
        [(hit["id"], hit["score"]) for hit in searcher.search(question, {"candidates": 10, "k": 5, "text_weight": weight})]
        for question, weight in asked
    ]


def test_the_next_build_goes_on_from_the_rewritten_table(place: Place) -> None:
    amended = erase(place, three(place))
    prune(place, amended)
    manifest, work = place.build(corpus(5, 70))
    assert (work["inserted"], open_version(place.store, manifest).count_rows()) == (4, 65)


def rewrite_and_die(place: Place, manifests: list[dict[str, Any]], call: int) -> None:
    die_in(tasks.rewriting, "place_tag", call=call)
    erase(place, manifests)


@pytest.mark.parametrize("call", [1, 3])
def test_a_rewriting_that_was_killed_leaves_what_was_there_and_the_next_one_finishes_it(place: Place, call: int) -> None:
    made = three(place)
    assert returncode_of(rewrite_and_die, place, made, call) == -9
    assert [open_version(place.store, each).count_rows() for each in made] == [61, 61, 61]
    amended = erase(place, made)
    prune(place, amended)
    assert SECRET.encode() not in bytes_of(place)
    assert [open_version(place.store, each).count_rows() for each in amended] == [60, 60, 61]


def test_files_that_no_version_names_are_found_and_dropped(place: Place) -> None:
    manifest, _ = place.build(corpus(0, 20))
    assert orphans(place.store) == []
    table = Path(place.store) / f"{manifest['table']}.lance"
    (table / "data/011110000100111011011110.lance").write_text(SECRET)
    index = table / "_indices/4a71686e-635f-4278-863e-db8a61729466"
    index.mkdir(parents=True)
    (index / "part_0_tokens.lance").write_text(SECRET)
    assert len(orphans(place.store)) == 2
    with only_writer(place.store):
        assert drop_orphans(place.store) == 2
    assert open_version(place.store, manifest).count_rows() == 20
    found = open_version(place.store, manifest).search("van", query_type="fts", fts_columns="embedded").limit(3).to_list()
    assert len(found) == 3 and len(vectors_of(["x"])) == 1


def test_params_that_would_index_the_text_otherwise_name_another_table(place: Place) -> None:
    manifest, _ = place.build(corpus(0, 20))
    assert names_table(manifest["table"], place.model.digest, PARAMS)
    assert not names_table(manifest["table"], place.model.digest, PARAMS.model_copy(update={"stem": not PARAMS.stem}))
    table: Any = open_table(connect(place.store), manifest["table"])
    assert set(tags(table)) == {manifest["tag"]}
