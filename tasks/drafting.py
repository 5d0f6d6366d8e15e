"""Pairs proposed from pages, for a person to accept: asked by the base model where it can, else by the form of a sentence.

Whoever writes a draft, the base model then reads the passage and has to give the same answer. What is proposed is a start: a rule
sees a sentence, not what a colleague would want to know.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tasks.contamination import Known
from tasks.facts import contains_fact
from tasks.params import PromptParams
from tasks.prompts import fitting
from tasks.records import Record, text_digest
from tasks.texts import comparable

ASK = (
    "Write one short question that a colleague might ask and that this text answers, and its answer in the words of the text.\n"
    "Title: {heading}\nText: {text}\nReply in two lines:\nQuestion: ...\nAnswer: ..."
)
REPLY = re.compile(r"Question:\s*(?P<question>[^\n]{8,200}\?)\s*Answer:\s*(?P<answer>[^\n]{1,200})", re.IGNORECASE)

SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
BULLET = re.compile(r"^(?:[-*]|\d+\.)\s+")
COUNT = r"(?:[\d,.]*\d|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)"
UNIT = r"(?:working |calendar |business )?(?:second|minute|hour|day|week|month|year)s?"
MOST = r"(?:(?:up to|at most|no more than|at least|about) )?"
SUBJECT = r"(?P<s>(?:The|A|An|Each|Every|One|All)\b[^.,;:()]{3,70}?|[A-Z][a-z]+(?: [a-z]+){0,3})"
# Headings of columns that do not name what stands below them: "Where", "Kept for", "Runs", "Example"
NO_NOUN = re.compile(
    r"^(?:where|when|who|what|how|which|may|example|typical|goes|stays)\b"
    r"|\b(?:for|by|to|with|within|when|ahead|outside|from|at|in|if \w+)$|^\w+(?:ed|s)$",
    re.IGNORECASE,
)
VERB = re.compile(r"\b(?:is|are|has|have|pays?|stays?|takes?)\b")  # what was taken for a subject is a sentence
NO_SUBJECT = re.compile(
    r"(?:it|they|this|that|these|those|there|he|she|we|you|which|what|if|when|both|for|from)\b", re.IGNORECASE
)


class Rule(NamedTuple):
    pattern: re.Pattern[str]
    question: str


def rule(pattern: str, question: str) -> Rule:
    return Rule(
        re.compile(pattern.replace("COUNT", COUNT).replace("UNIT", UNIT).replace("MOST", MOST).replace("SUBJECT", SUBJECT)),
        question,
    )


RULES = (
    # A cell as tasks/blocks.py tells it
    rule(r"^(?P<c>[A-Z][^.,;:]{2,40}?) for (?P<s>[^.,;:]{2,60}?) is (?P<value>[^.;]{1,40})\.$", "What is the {c} for {s}?"),
    rule(r"^SUBJECT (?:(?P<one>costs)|cost) (?P<value>MOST[£€$]?COUNT[^.,;]{0,25})[.,;]", "How much {do} {s} cost?"),
    rule(r"^SUBJECT (?:(?P<one>takes)|take) (?P<value>MOSTCOUNT UNIT)\b", "How long {do} {s} take?"),
    rule(r"^SUBJECT (?:(?P<one>lasts)|last) (?P<value>MOSTCOUNT UNIT)\b", "How long {do} {s} last?"),
    rule(
        r"^SUBJECT (?P<m>can|may|must) (?P<v>have|hold|carry|send|use|store|contain|start) (?P<value>MOSTCOUNT) (?P<n>[a-z]+s)\b",
        "How many {n} {m} {s} {v}?",
    ),
    rule(r"^SUBJECT (?P<v>holds|has|serves|seats) (?P<value>MOSTCOUNT) (?P<n>[a-z]+s)\b", "How many {n} does {s} {base}?"),
    rule(
        r"^SUBJECT (?P<is>is|are) (?P<p>kept|stored|valid|open|retained|available|held|saved) for (?P<value>MOSTCOUNT UNIT)\b",
        "How long {is} {s} {p}?",
    ),
    rule(
        r"^SUBJECT (?P<is>is|are) (?P<p>[a-z]+ed|paid|sent|held|made|done|run) (?P<value>every (?:COUNT )?[a-z]+|daily|weekly)\b",
        "How often {is} {s} {p}?",
    ),
    rule(
        r"^SUBJECT (?P<is>is|are) (?P<p>[a-z]+ed|paid|sent|held|made|done) within (?P<value>COUNT UNIT)\b",
        "Within what time {is} {s} {p}?",
    ),
    rule(
        r"^SUBJECT (?P<v>opens|closes|begins|starts|ends|leaves) (?P<value>at \d{1,2}(?:[:.]\d\d)?)\b",
        "When does {s} {base}?",
    ),
    rule(r"^SUBJECT (?P<is>is|are) limited to (?P<value>[£€$]?COUNT[^.,;]{0,25})[.,;]", "What {is} {s} limited to?"),
    rule(r"^(?P<s>The [^.,;:()]{3,60}?) is (?P<value>(?:extension )?[£€$]?COUNT[^.,;]{0,25})[.,;]", "What is {s}?"),
)


class Draft(NamedTuple):
    question: str
    answer: str


def by_rules(text: str) -> Iterator[Draft]:
    for sentence in SENTENCE.split(text):
        sentence = BULLET.sub("", sentence.strip())
        found = ((each, each.pattern.match(sentence)) for each in RULES)
        hit = next(((each, match) for each, match in found if match), None)
        if hit and asks(hit[1].groupdict()):
            yield told(*hit)


def asks(parts: dict[str, str | None]) -> bool:
    subject, column = str(parts["s"]), parts.get("c") or "nothing"
    return not (VERB.search(subject) or VERB.search(column) or NO_SUBJECT.match(subject) or NO_NOUN.search(column))


def told(each: Rule, match: re.Match[str]) -> Draft:
    parts = {key: value for key, value in match.groupdict().items() if value}
    parts |= {key: lowered(parts[key]) for key in ("s", "c") if key in parts}
    parts["c"] = re.sub(r"^(?:the|a|an|our|your|its) ", "", parts.get("c", ""))
    parts |= {
        "do": "does" if "one" in parts else "do",
        "base": {"has": "have"}.get(parts.get("v", ""), parts.get("v", "").removesuffix("s")),
    }
    return Draft(each.question.format(**parts), parts["value"].strip())


def lowered(words: str) -> str:
    """Without the capital of a sentence's beginning; an abbreviation keeps its own, and so does a name of several words."""
    first, *others = words.split(" ")
    if any(word[:1].isupper() for word in others[:1]):
        return words
    return " ".join([first if first.isupper() and len(first) > 1 else first[:1].lower() + first[1:], *others])


def by_model(replies: Sequence[str]) -> Iterator[Draft]:
    for reply in replies:
        if found := REPLY.search(reply):
            yield Draft(found["question"].strip(), found["answer"].strip())


def proposals(passages: Sequence[Record], generator: Any, batch_tokens: int) -> list[list[Draft]]:
    """For every passage what is asked about it: the model's question where its reply has the form that it was asked for."""
    prompts = [generator.render([{"role": "user", "content": ASK.format(**passage)}]) for passage in passages]
    replies: dict[str, str] = {}
    for batch in generator.batches(prompts, batch_tokens, "drafts"):
        replies |= {prompt: made.text for prompt, made in batch.items()}
    return [
        list(by_model([replies[prompt]])) or list(by_rules(passage["text"]))
        for prompt, passage in zip(prompts, passages, strict=True)
    ]


def confirmed(
    drafts: Sequence[tuple[Draft, Record]], generator: Any, prompt: PromptParams, batch_tokens: int
) -> list[tuple[Draft, Record]]:
    """Those whose answer the model gives as well, when it is asked with the passage."""
    asked = [
        generator.render(fitting(generator.tokenizer, draft.question, [passage], prompt, [])[0]) for draft, passage in drafts
    ]
    given: dict[str, str] = {}
    for batch in generator.batches(asked, batch_tokens, "check of the drafts"):
        given |= {key: made.text for key, made in batch.items()}
    return [pair for pair, key in zip(drafts, asked, strict=True) if contains_fact(given[key], pair[0].answer)]


def record(draft: Draft, passage: Record, answer: str) -> Record:
    return {
        "id": "draft-" + text_digest(comparable(draft.question))[:16],
        "question": draft.question,
        "answer": answer.format(value=draft.answer),
        "document": passage["document"],
        "fact": draft.answer,
        "draft": True,
        "status": "proposed",
        "passage": passage["text"],
    }


def draft_pairs(
    passages: Sequence[Record], known: Sequence[Record], generator: Any, prompt: PromptParams, per_page: int, answer: str,
    near: float, batch_tokens: int,
) -> list[Record]:  # fmt: skip
    """At most `per_page` a page, less the pairs that a page already has; none that repeats a known question or another draft."""
    asked, taken = Known(near), Counter(pair["document"] for pair in known)
    for pair in known:
        asked.add(pair["id"], pair)
    open_ = [passage for passage in passages if taken[passage["document"]] < per_page]
    found = zip(open_, proposals(open_, generator, batch_tokens), strict=True)
    made: list[Record] = []
    for draft, passage in confirmed(
        [(draft, passage) for passage, drafts in found for draft in drafts], generator, prompt, batch_tokens
    ):
        new = record(draft, passage, answer)
        if taken[passage["document"]] < per_page and not asked.find(new)[0]:
            asked.add(new["id"], new)
            taken[passage["document"]] += 1
            made.append(new)
    return made
