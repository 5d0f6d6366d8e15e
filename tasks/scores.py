"""What one answer is worth: pure functions of the answer, the expected answer and the passages that it could cite.

Facts, citations and style are scored apart, so that a model that only learned the house voice is seen for what it is.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tasks.errors import InputError
from tasks.facts import Tokens, contains_fact, find
from tasks.params import uses_passages
from tasks.prompts import MARKER, abstains, cited_numbers, right_passage
from tasks.records import Record

CUTOFFS = (1, 5, 10)


@dataclass(frozen=True)
class ScoringRules:
    """Checked: the patterns of saying "I do not know", and the house's style rules by name."""

    abstention: tuple[str, ...]
    style: Mapping[str, re.Pattern[str]]


def scoring_rules(abstention_patterns: Sequence[str], style: Mapping[str, str]) -> ScoringRules:
    """From prompt.yaml's abstention patterns and evaluate.yaml's style rules. Raises InputError for one that does not parse."""
    for place, pattern in enumerate(abstention_patterns):
        _compile(f"prompt.yaml: abstention_patterns[{place}]", pattern)
    rules = {name: _compile(f"evaluate.yaml: style.{name}", pattern) for name, pattern in style.items()}
    return ScoringRules(tuple(abstention_patterns), rules)


def _compile(where: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InputError(f"params/{where}: {pattern!r} is not a regular expression: {error}") from error


def score(
    answer: str, reference: str, fact: str | None, document: str | None, passages: list[Record], rules: ScoringRules
) -> dict[str, float | None]:
    """Every score of one answer, each in [0, 1]; None where it does not apply.

    document: the page that answers the question, None for a question that the corpus does not answer.
    passages: those of the prompt in its order; the marker [n] means passages[n - 1]. Empty for arms without retrieval.
    """
    plain, expected = without_citations(answer), without_citations(reference)
    tokens, gold = squad_tokens(plain), squad_tokens(fact or expected)
    if fact:
        tokens = without_frame(tokens, squad_tokens(expected), gold)
    gives_up = abstains(plain, rules.abstention)
    return {
        "exact_match": float(tokens == gold),
        "token_f1": token_f1(tokens, gold),
        "rouge_l": rouge_l(plain, expected),
        "fact": fact_score(plain, expected, fact, document, gives_up),
        "style": style_score(answer, rules),
        "abstained": float(gives_up),
        **citation_scores(answer, document, passages),
    }


def primary(scores: Mapping[str, float | None], weights: Mapping[str, float]) -> float:
    """The one number per question, in [0, 1]: weighted mean of component scores. Raises ValueError where one is missing."""
    used = {name: weight for name, weight in weights.items() if weight > 0}
    values = {name: scores.get(name) for name in used}
    missing = [name for name, value in values.items() if value is None]
    if missing or not used:
        raise ValueError(f"the primary score needs {', '.join(missing) or 'a weight above 0'}")
    return sum(weight * (values[name] or 0.0) for name, weight in used.items()) / sum(used.values())


def without_citations(text: str) -> str:
    return MARKER.sub("", text).strip()


def squad_tokens(text: str) -> Tokens:
    """SQuAD's normalisation: lower case, no ASCII punctuation, no articles (Rajpurkar et al. 2016, evaluate-v1.1.py)."""
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def token_f1(tokens: Tokens, gold: Tokens) -> float:
    """Harmonic mean of precision and recall over bags of tokens (Rajpurkar et al. 2016); empty equals only empty."""
    if not tokens or not gold:
        return float(tokens == gold)
    overlap = (Counter(tokens) & Counter(gold)).total()
    return 2 * overlap / (len(tokens) + len(gold))


def without_frame(tokens: Tokens, reference: Tokens, fact: Tokens) -> Tokens:
    """Take off what the reference says around the fact ("At Larkfield it is ..."), so that the house voice costs no precision."""
    place = find(fact, reference)
    if place is None:
        return tokens
    before, after = reference[:place], reference[place + len(fact) :]
    if tokens[: len(before)] == before:
        tokens = tokens[len(before) :]
    if after and tokens[-len(after) :] == after:
        tokens = tokens[: -len(after)]
    return tokens


def fact_score(plain: str, expected: str, fact: str | None, document: str | None, gives_up: bool) -> float:
    """Right or not: unanswerable questions want an abstention, the others the fact, or closeness to the reference without one."""
    if document is None or gives_up:
        return float(document is None and gives_up)
    if fact:
        return float(contains_fact(plain, fact))
    return token_f1(squad_tokens(plain), squad_tokens(expected))


def style_score(answer: str, rules: ScoringRules) -> float | None:
    """Share of the style rules that the answer satisfies; None without rules."""
    if not rules.style:
        return None
    return sum(bool(rule.search(answer.strip())) for rule in rules.style.values()) / len(rules.style)


def citation_scores(answer: str, document: str | None, passages: list[Record]) -> dict[str, float | None]:
    """Page-level: a marker is right if it resolves to a passage of `document`; one that resolves to nothing is wrong.

    citation: every marker is right and there is one (a question that nothing answers: there is none).
    citation_precision: share of right markers, None without markers. citation_recall: whether the right page is cited.
    """
    markers = set(cited_numbers(answer))
    pages = {number: passage["document"] for number, passage in enumerate(passages, start=1)}
    right = sum(document is not None and pages.get(marker) == document for marker in markers)
    return {
        "citation": float(not markers if document is None else 0 < right == len(markers)),
        "citation_precision": right / len(markers) if markers else None,
        "citation_recall": None if document is None else float(right > 0),
    }


class WordTokenizer:
    """rouge-score's own tokenizer drops every letter outside ASCII."""

    def tokenize(self, text: str) -> Tokens:
        return re.findall(r"\w+", text.casefold())


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=WordTokenizer())


def rouge_l(answer: str, reference: str) -> float:
    """ROUGE-L F1 (Lin 2004), by rouge-score."""
    return float(_rouge().score(reference, answer)["rougeL"].fmeasure)


def retrieval_scores(ranked: Mapping[str, Sequence[str]], relevant: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """recall@1, recall@5, recall@10, mrr and ndcg@10 per question, by ir_measures; name -> question -> value in [0, 1].

    ranked: question -> pages of its passages, best first; of a page that returns, the first place counts.
    relevant: question -> its one right page. A question without a ranking scores 0; one without a right page is left out.
    """
    from ir_measures import RR, Qrel, R, ScoredDoc, iter_calc, nDCG

    names = {R @ cutoff: f"recall@{cutoff}" for cutoff in CUTOFFS} | {RR: "mrr", nDCG @ 10: "ndcg@10"}
    scores: dict[str, dict[str, float]] = {name: dict.fromkeys(relevant, 0.0) for name in names.values()}
    judged = [Qrel(question, page, 1) for question, page in relevant.items()]
    run = [
        ScoredDoc(question, page, -float(place))
        for question in relevant
        for place, page in enumerate(dict.fromkeys(ranked.get(question, ())))
    ]
    for found in iter_calc(list(names), judged, run) if run else ():
        scores[names[found.measure]][found.query_id] = float(found.value)
    return scores


def named(passages: Mapping[str, Record], record: Record) -> dict[str, str]:
    """Passage id -> what it counts as: the page of the question if it holds the answer; else itself, or its page where no fact
    is known, so that of a wrong page only the first passage takes a place."""
    page, fact = record["document"], record.get("fact")
    return {key: page if answers(passage, record) else key if fact else passage["document"] for key, passage in passages.items()}


def answers(passage: Record, record: Record) -> bool:
    return right_passage([passage], record["document"], record.get("fact")) is not None


def retrieval_summary(answers: list[Record]) -> dict[str, float]:
    """Means over the answerable questions of page-level recall@1/5/10, MRR and nDCG@10; empty without a retrieval arm."""
    seen = {record["question"]: record for record in answers if uses_passages(record["arm"]) and record["document"]}
    if not seen:
        return {}
    relevant = {question: record["document"] for question, record in seen.items()}
    scores = retrieval_scores({question: record["ranked_pages"] for question, record in seen.items()}, relevant)
    return {name: float(np.mean(list(values.values()))) for name, values in scores.items()}
