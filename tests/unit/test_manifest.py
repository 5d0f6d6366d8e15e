import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import IntegrityError
from tasks.manifest import Release, difference, load_release, release_id, render, short
from tasks.records import text_digest

DIGEST = {letter: letter * 64 for letter in "abcdef"}


def manifest(**changes: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "corpus": {"digest": DIGEST["a"], "documents": 168},
        "index": {"table": "passages", "tag": "rows-aaaa", "rows": 900, "digest": DIGEST["a"]},
        "embedder": {
            "source": "builtin", "id": "minilm", "revision": "1", "digest": DIGEST["b"], "dimension": 384,
            "pooling": "mean", "normalised": True, "query_prompt": "", "passage_prompt": "", "max_tokens": 256,
            "fingerprint": [0.1234, -0.5],
        },
        "base": {"source": "builtin", "id": "tiny", "revision": "1", "digest": DIGEST["c"]},
        "adapter": {"digest": DIGEST["d"]},
        "tokenizer": {"tokenizer.json": DIGEST["e"]},
        "chat_template": DIGEST["f"],
        "prompt": {"system": "", "shots": {"prompt": 3}},
        "retrieval": {"k": 5, "text_weight": 0.5},
        "decoding": {"max_new_tokens": 64},
        "arm": "rag+lora",
    } | changes  # fmt: skip


def release(**changes: Any) -> Release:
    return Release.model_validate(manifest(**changes))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
SETTINGS = st.dictionaries(st.text(), JSON, max_size=4)


@given(SETTINGS, SETTINGS, SETTINGS, st.text(), st.lists(st.floats(-1, 1), min_size=1))
def test_a_manifest_reads_back_as_it_was_written_under_the_same_id(
    prompt: Any, retrieval: Any, decoding: Any, tag: str, fingerprint: list[float]
) -> None:
    made = release(
        prompt=prompt,
        retrieval=retrieval,
        decoding=decoding,
        index=manifest()["index"] | {"tag": tag or "t"},
        embedder=manifest()["embedder"] | {"fingerprint": fingerprint},
    )
    again = load_release(render(made))
    assert again == made
    assert release_id(again) == release_id(made) == text_digest(render(made))
    assert difference(made, again) == []


def test_an_embedders_backend_is_pinned_and_a_release_from_before_there_was_a_choice_keeps_its_id() -> None:
    old, integers = manifest(), release(embedder=manifest()["embedder"] | {"backend": "onnx-int8"})
    assert "backend" not in render(load_release(json.dumps(old)))
    assert release_id(release(embedder=old["embedder"] | {"backend": "torch"})) == release_id(release())
    assert load_release(render(integers)).embedder.backend == "onnx-int8"
    assert difference(release(), integers) == ['embedder backend: (not set) -> "onnx-int8"']


def test_a_query_encoder_is_pinned_and_a_release_from_before_there_were_any_keeps_its_id() -> None:
    tuned = manifest()["embedder"] | {"digest": DIGEST["e"], "tuned": {"sides": "query", "of": DIGEST["b"]}}
    made = release(query_encoder=tuned)
    assert release(query_encoder=None) == release() and "query_encoder" not in render(release())
    assert "tuned" not in render(release(embedder=manifest()["embedder"] | {"tuned": None}))
    assert release_id(made) != release_id(release()) and load_release(render(made)) == made
    assert difference(release(), made) == [f"query encoder: none -> {short(DIGEST['e'])}"]
    other = tuned | {"tuned": {"sides": "query", "of": DIGEST["c"]}}
    for wrong in (other, manifest()["embedder"]):
        with pytest.raises(IntegrityError, match="not tuned from the embedder of the passages"):
            load_release(json.dumps(manifest(query_encoder=wrong)))


def test_a_reranker_is_pinned_with_the_number_of_passages_that_it_orders_and_only_then() -> None:
    reads = {
        "source": "hub", "id": "org/reads", "revision": "1" * 40, "digest": DIGEST["e"], "max_tokens": 256,
        "backend": "onnx-int8", "fingerprint": [0.25, -7.5],
    }  # fmt: skip
    ordered = manifest()["retrieval"] | {"rerank": 20}
    made = release(reranker=reads, retrieval=ordered)
    assert release(reranker=None) == release() and "rerank" not in render(release())
    assert release_id(made) != release_id(release()) and load_release(render(made)) == made
    assert difference(release(), made) == [f"reranker: none -> {short(DIGEST['e'])}", "retrieval rerank: (not set) -> 20"]
    for wrong in ({"reranker": reads}, {"retrieval": ordered}):
        with pytest.raises(IntegrityError, match=r"`retrieval\.rerank` and `reranker` go together"):
            load_release(json.dumps(manifest(**wrong)))


def test_the_id_does_not_depend_on_the_order_of_keys_and_changes_with_every_piece() -> None:
    backwards = Release.model_validate(dict(reversed(manifest().items())))
    assert release_id(backwards) == release_id(release())
    changed = [release(**change) for change in CHANGES]
    assert len({release_id(each) for each in [release(), *changed]}) == len(changed) + 1


def test_the_short_id_has_twelve_digits() -> None:
    assert short(release_id(release())) == release_id(release())[:12]


CHANGES: list[dict[str, Any]] = [
    {"corpus": {"digest": DIGEST["b"], "documents": 173}},
    {"corpus": {"digest": DIGEST["b"], "documents": 168}},
    {"index": manifest()["index"] | {"rows": 912, "digest": DIGEST["b"]}},
    {"index": manifest()["index"] | {"table": "other"}},
    {"embedder": manifest()["embedder"] | {"pooling": "cls"}},
    {"embedder": manifest()["embedder"] | {"fingerprint": [0.9]}},
    {"base": manifest()["base"] | {"digest": DIGEST["f"]}},
    {"adapter": None, "arm": "rag"},
    {"tokenizer": {"tokenizer.json": DIGEST["a"], "vocab.txt": DIGEST["a"]}},
    {"chat_template": DIGEST["a"]},
    {"prompt": {"system": "Be brief. " * 20, "shots": {"prompt": 3}}},
    {"retrieval": {"k": 8, "text_weight": 0.5}},
    {"decoding": {}},
    {"arm": "rag"},
]
TOLD = [
    ["corpus: 168 -> 173 documents"],
    ["corpus: other content, still 168 documents"],
    ["index: 900 -> 912 rows"],
    ['index table: "passages" -> "other"'],
    ['embedder pooling: "mean" -> "cls"'],
    ["embedder: the same files give other vectors (fingerprint)"],
    ["base model: other files (cccccccccccc -> ffffffffffff)"],
    ["adapter: dddddddddddd -> none", "arm: rag+lora -> rag"],
    ["tokenizer file tokenizer.json: changed", "tokenizer file vocab.txt: added"],
    ["chat template: changed"],
    ['prompt system: "" -> "Be brief. Be brief. Be brief. Be brief. Be brief. Be bri...'],
    ["retrieval k: 5 -> 8"],
    ["decoding max_new_tokens: 64 -> (not set)"],
    ["arm: rag+lora -> rag"],
]


@pytest.mark.parametrize(("change", "told"), list(zip(CHANGES, TOLD, strict=True)), ids=[told[0] for told in TOLD])
def test_a_difference_is_told_in_plain_words(change: dict[str, Any], told: list[str]) -> None:
    assert difference(release(), release(**change)) == told


def test_one_and_true_are_different_settings() -> None:
    assert difference(release(decoding={"sample": 1}), release(decoding={"sample": True})) == ["decoding sample: 1 -> true"]


def test_a_newer_format_is_refused_before_its_unknown_keys_are() -> None:
    with pytest.raises(IntegrityError, match=r"made by a newer Tandem \(format 2; this one reads 1\): upgrade"):
        load_release(json.dumps(manifest(format=2, colour="blue")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "torn or not JSON"),
        (render(release())[:-20], "torn or not JSON"),
        ("[1]", "a JSON object was expected, not list"),
        ("[" * 100_000, "torn or not JSON"),
        (json.dumps(manifest(colour="blue")), "colour: Extra inputs"),
        (json.dumps({key: value for key, value in manifest().items() if key != "arm"}), "arm: Field required"),
        (json.dumps(manifest(format=0)), "format: "),
        (json.dumps(manifest(format=True)), "format: "),
        (json.dumps(manifest(arm="both")), "arm: "),
        (json.dumps(manifest(adapter=None)), r"the arm rag\+lora needs an adapter"),
        (json.dumps(manifest(chat_template="A" * 64)), "chat_template: "),
        (json.dumps(manifest(chat_template="a" * 64 + "\n")), "chat_template: "),
        (json.dumps(manifest(tokenizer={})), "tokenizer: "),
        (json.dumps(manifest(corpus={"digest": DIGEST["a"], "documents": "168"})), "corpus.documents: "),
        (json.dumps(manifest(retrieval={"k": float("nan")})), "NaN is not a number"),
        (json.dumps(manifest(retrieval={"k": float("inf")})), "Infinity is not a number"),
        (json.dumps(manifest(retrieval={"k": 0})).replace('"k": 0', '"k": 1e999'), "torn or not JSON"),
        (json.dumps(manifest(prompt={"system": "\ud800"})), "torn or not JSON"),
        (json.dumps(manifest()).replace('"format": 1', '"format": 1, "format": 1'), "'format' stands twice"),
    ],
)
def test_a_manifest_that_tandem_did_not_write_is_refused_saying_why_and_what_mends_it(text: str, message: str) -> None:
    with pytest.raises(IntegrityError, match=message) as raised:
        load_release(text)
    assert "restore it from a backup" in str(raised.value)


def test_what_is_no_json_never_becomes_a_release() -> None:
    for value in (float("nan"), {1, 2}, object()):
        with pytest.raises(ValueError):
            release(decoding={"seed": value})
