from pathlib import Path

import pytest
import tiny
from test_index import Place, corpus

from tasks.errors import InputError
from tasks.params import RetrievalParams
from tasks.params_files import load
from tasks.records import Record, write_jsonl
from tasks.retrieval import Legs, candidates, choose, clearly_better, picture, retrieval, smallest_k
from tasks.scores import named

PARAMS = load(RetrievalParams, tiny.ROOT / "params").model_copy(
    update={
        "k": [1, 2, 3],
        "k_tolerance": 0.02,
        "fusion": ["minmax"],
        "text_weights": [0.5],
        "confidence": 0.95,
        "resamples": 500,
    }
)


def legs(text: str, vector: str) -> Legs:
    """Each letter is a passage of the page of that name, best first."""
    rankings = [[(key, float(len(found) - place)) for place, key in enumerate(found)] for found in (text, vector)]
    passages: dict[str, Record] = {key: {"id": key, "document": key, "heading": "H", "text": key} for key in text + vector}
    return rankings[0], rankings[1], passages


def asked(count: int, text: str, vector: str) -> tuple[dict[str, Legs], dict[str, Record]]:
    """`count` questions on as many pages; page "r" is the right one, named after its question."""
    found, relevant = {}, {}
    for number in range(count):
        left, right, passages = legs(text, vector)
        found[f"q{number}"] = (
            left,
            right,
            {key: row | {"document": f"r{number}" if key == "r" else key} for key, row in passages.items()},
        )
        relevant[f"q{number}"] = {"id": f"q{number}", "document": f"r{number}", "fact": None}
    return found, relevant


def test_the_better_leg_is_served_alone() -> None:
    settings, curve = choose(*asked(20, text="abr", vector="rab"), PARAMS)
    assert (settings["mode"], settings["text_weight"], settings["k"]) == ("vector", 0.0, 1)
    settings, _ = choose(*asked(20, text="rab", vector="abr"), PARAMS)
    assert (settings["mode"], settings["text_weight"]) == ("text", 1.0)
    assert [point["text_weight"] for point in curve] == [0.0, 1.0, 0.5]  # both legs are always measured


def test_fusion_is_served_where_it_is_better_beyond_doubt() -> None:
    settings, _ = choose(*asked(20, text="arbe", vector="crdf"), PARAMS)
    assert (settings["mode"], settings["text_weight"]) == ("hybrid", 0.5)


def test_reciprocal_ranks_are_served_where_they_alone_are_better_beyond_doubt() -> None:
    """Passages that one leg is sure of hide the right one, which both legs have second."""
    found, relevant = asked(20, text="arbc", vector="drec")
    for text, vector, _ in found.values():
        text[:] = [("a", 9.0), ("r", 0.2), ("b", 0.1), ("c", 0.0)]
        vector[:] = [("d", 9.0), ("r", 0.2), ("e", 0.1), ("c", 0.0)]
    weighted, _ = choose(found, relevant, PARAMS)
    assert weighted["mode"] != "hybrid"
    settings, curve = choose(found, relevant, PARAMS.model_copy(update={"fusion": ["minmax", "rrf"]}))
    assert (settings["mode"], settings["fusion"]) == ("hybrid", "rrf")
    assert curve[-1]["ndcg@10"] == 1.0


def test_both_legs_are_always_a_choice_and_a_fusion_only_where_params_name_it() -> None:
    alone = candidates(PARAMS.model_copy(update={"fusion": ["rrf"]}))
    assert [(choice["fusion"], choice["text_weight"]) for choice in alone] == [("none", 0.0), ("none", 1.0), ("rrf", 0.5)]
    assert [choice["text_weight"] for choice in candidates(PARAMS)] == [0.0, 1.0, 0.5]


def test_the_picture_shows_the_fusion_that_is_served_or_the_first_with_weights() -> None:
    curve: list[Record] = [
        {"fusion": fusion, "text_weight": weight, "mrr": place / 10}
        for place, (fusion, weight) in enumerate([("none", 0.0), ("none", 1.0), ("ratio", 0.5), ("minmax", 0.4), ("rrf", 0.5)])
    ]
    shown = {
        fusion: ([point["text_weight"] for point in points], chosen)
        for fusion in ("none", "ratio", "minmax", "rrf")
        for points, chosen in [picture(curve, {"fusion": fusion, "text_weight": 0.4})]
    }
    assert shown == {
        "none": ([0.0, 1.0, 0.5], 0.4),
        "ratio": ([0.0, 1.0, 0.5], 0.4),
        "minmax": ([0.0, 1.0, 0.4], 0.4),
        "rrf": ([0.0, 1.0, 0.5], None),
    }
    assert picture(curve, {"fusion": "rrf"})[0][0] == {"text_weight": 0.0, "mrr": 0.0}


def test_the_choice_is_by_the_passage_that_states_the_fact_not_by_its_page() -> None:
    """Both legs find the page first; only the fused ranking begins with the passage that states the fact."""
    found, relevant = asked(20, text="arbe", vector="crdf")
    for number, (_, _, passages) in enumerate(found.values()):
        for key, row in passages.items():
            row |= {"document": f"r{number}", "text": "It leaves at 5:45." if key == "r" else "It is blue."}
    facts = {question: record | {"fact": "at 5:45"} for question, record in relevant.items()}
    assert choose(found, facts, PARAMS)[0]["mode"] == "hybrid"
    settings, curve = choose(found, relevant, PARAMS)
    assert settings["mode"] != "hybrid" and {point["ndcg@10"] for point in curve} == {1.0}


def test_the_same_scores_are_not_clearly_better() -> None:
    scores, pages = {"q": 0.5, "p": 0.5}, {"q": "a", "p": "b"}
    assert not clearly_better(scores, scores, pages, PARAMS)
    assert not clearly_better({"q": 1.0, "p": 1.0}, scores, {"q": "a", "p": "a"}, PARAMS)  # one page proves nothing


def test_fusion_that_helped_one_question_of_many_is_not_served() -> None:
    found, relevant = asked(20, text="rab", vector="rcd")
    lucky, one = asked(1, text="arbe", vector="crdf")
    found["lucky"], relevant["lucky"] = lucky["q0"], one["q0"]
    settings, _ = choose(found, relevant, PARAMS)
    assert settings["mode"] == "vector"


def test_the_fewest_passages_that_lose_nothing_are_taken() -> None:
    found_at = {"q": [False, False, True], "p": [True, False, False]}
    assert smallest_k(found_at, PARAMS) == 3
    assert smallest_k(found_at, PARAMS.model_copy(update={"k_tolerance": 0.5})) == 1
    assert smallest_k({"q": []}, PARAMS) == 1


def test_a_passage_counts_if_it_states_the_fact_and_by_its_page_where_no_fact_is_known() -> None:
    """The first passage of the right page says something else: with k = 1 the prompt would not hold the answer."""
    rows = {
        key: {"id": key, "document": "van", "heading": "Van", "text": text}
        for key, text in (("a", "It is blue."), ("b", "It leaves at 5:45."))
    }
    found: dict[str, Legs] = {"q": ([], [("a", 2.0), ("b", 1.0)], rows)}
    record = {"id": "q", "document": "van", "fact": "at 5:45"}
    assert named(rows, record) == {"a": "a", "b": "van"}
    assert named(rows, record | {"fact": None}) == {"a": "van", "b": "van"}
    assert choose(found, {"q": record}, PARAMS)[0]["k"] == 2
    assert choose(found, {"q": record | {"fact": None}}, PARAMS)[0]["k"] == 1


def test_without_a_validation_question_that_names_a_page_there_is_nothing_to_choose_by(
    tmp_path: Path, tiny_embedder: Path
) -> None:
    place = Place(tmp_path, tiny_embedder)
    place.build(corpus())
    write_jsonl(tmp_path / "questions/validation.jsonl", [{"id": "1", "question": "How deep is the sea?", "document": None}])
    paths = {name: tmp_path / name for name in ("questions", "metrics", "plots", "reranker", "vectors")}
    with pytest.raises(InputError, match="no validation question names a page"):
        retrieval(
            **paths,
            index=tmp_path / "out",
            embedder=place.embedder,
            retriever=place.retriever,
            out=tmp_path / "made",
            store=place.store,
            params=PARAMS,
        )
    assert not (tmp_path / "made").exists()
