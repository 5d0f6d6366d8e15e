"""Passages of handbook prose with company and filler, and questions that they answer or do not."""

import random
from dataclasses import dataclass, replace

import values
from bank import Attribute, Bank, upper_first
from examples import CITE, UNANSWERED, UNKNOWN, Example, Fact, Later

OPENERS = tuple(
    f"{word} " for word in ["The", "For", "At", "In", "We", "You", "A", "An", "From", "After", "If", "On", "No", "Our", "There"]
)
NOUNS = {"device": "machine", "vendor": "supplier", "person": "colleague", "group": "they", "policy": ""}
OTHER_SYSTEMS = ("Answer from the passages.", "You answer questions about the handbook.", "Be brief.")


def short_name(kind: str) -> str:
    """What an entity is called once it is known: 'the site', 'the machine', 'they'."""
    noun = NOUNS.get(kind, kind)
    return noun if noun in ("they", "") else f"the {noun}"


def shortened(rng: random.Random, kind: str, fact: Fact) -> str:
    """The fact's sentence with its entity by the short name, where that reads well and leaves the value whole."""
    short, entity = short_name(kind), fact.subject
    starts = fact.sentence.startswith(upper_first(entity))
    if not short or entity == fact.value or (kind == "group" and not starts) or rng.random() > 0.35:
        return fact.sentence
    sentence = (upper_first(short) if starts else short).join(fact.sentence.split(upper_first(entity) if starts else entity, 1))
    return upper_first(sentence) if fact.value in upper_first(sentence) else fact.sentence


def heading_of(rng: random.Random, entity: str) -> str:
    """'Title > Section', with the entity's name as the title where there is one."""
    topic = rng.choice(values.words("topics"))
    other = f"{rng.choice(values.words('team'))} {rng.choice(values.words('topics')).lower()}"
    title = upper_first(entity or other)
    return rng.choice((f"{title} > {topic}", f"{title} > {topic}", title, f"{topic} > {title}"))


def page(rng: random.Random, kind: str, entity: str, facts: list[Fact], filler: float) -> tuple[tuple[str, str], list[Fact]]:
    """One passage, (heading, text), and its facts as it words them."""
    named = rng.random() < 0.6
    told = []
    for number, fact in enumerate(facts):
        told.append(replace(fact, sentence=shortened(rng, kind, fact)) if number or named else fact)
    texts = [fact.sentence for fact in told]
    join(rng, texts, told)
    while rng.random() < filler:
        texts.insert(rng.randrange(len(texts) + 1), rng.choice(values.words("filler")))
    return (heading_of(rng, entity if named else ""), " ".join(texts)), told


def join(rng: random.Random, texts: list[str], told: list[Fact]) -> None:
    """Now and then two facts in one sentence."""
    if len(texts) < 2 or rng.random() > 0.2:
        return
    second = texts[1][:1].lower() + texts[1][1:] if texts[1].startswith(OPENERS) else texts[1]
    texts[:2] = [f"{texts[0][:-1]}{rng.choice((', and ', ', while ', '; ', ', but '))}{second}"]
    for number in (0, 1):
        value = told[number].value
        value = value if value in texts[0] else value[:1].lower() + value[1:]
        told[number] = replace(told[number], sentence=texts[0], value=value)


def facts_of(rng: random.Random, bank: Bank, entity: str, attributes: list[Attribute]) -> list[Fact]:
    """One fact per attribute, without two that share a value."""
    facts: list[Fact] = []
    for attribute in attributes:
        fact = bank.fact(rng, entity, attribute)
        if all(fact.value != other.value for other in facts):
            facts.append(fact)
    return facts


@dataclass(frozen=True)
class Plan:
    """What a passage is to tell: attributes of an entity."""

    kind: str
    entity: str
    attributes: list[Attribute]


def planned(rng: random.Random, bank: Bank, pages: int, per_page: int, unanswerable: bool) -> tuple[Attribute, list[Plan]]:
    """The attribute asked for, and the passages: first the entity's own, then distractors.

    A distractor tells the same attribute of another entity, or other attributes, or something else altogether.
    """
    kind = rng.choices(bank.kinds, bank.weights)[0]
    rules = kind == "policy"
    group = bank.topic_rules(rng, 8) if rules and rng.random() < 0.6 else bank.by_kind[kind]
    entity = bank.entity(rng, kind) if not rules or rng.random() < 0.4 else ""
    count = rng.randint(max(1, per_page - 1), per_page)
    chosen = rng.sample(group, min(len(group), count + unanswerable))
    plans = [Plan(kind, entity, chosen[unanswerable:])]
    for _ in range(pages - 1):
        other_kind, other = kind, bank.entity(rng, kind)
        if any(other == plan.entity for plan in plans) or not entity or rng.random() < 0.4:
            other_kind = rng.choices(bank.kinds, bank.weights)[0]
            other = bank.entity(rng, other_kind)
        pool = [item for item in (group if other_kind == kind else bank.by_kind[other_kind]) if item not in chosen]
        attributes = rng.sample(pool, min(len(pool), rng.randint(max(1, per_page - 1), per_page)))
        if other_kind == kind and entity and other != entity and rng.random() < 0.7:
            attributes = [chosen[0], *attributes[1:]]
        plans.append(Plan(other_kind, other, attributes))
    return chosen[0], plans


def prose_example(rng: random.Random, bank: Bank, pages: int, per_page: int, unanswerable: bool, follow: int) -> Example:
    """A question on `pages` shuffled passages of up to `per_page` facts, with up to `follow` further questions."""
    asked, plans = planned(rng, bank, pages, per_page, unanswerable)
    gold = rng.randrange(pages)
    order = plans[1:]
    order.insert(gold, plans[0])
    passages, told = [], []
    for number, plan in enumerate(order):
        facts = facts_of(rng, bank, plan.entity, plan.attributes)
        rng.shuffle(facts)
        passage, worded = page(rng, plan.kind, plan.entity, facts, 0.25)
        passages.append(passage)
        told += [(number, fact) for fact in worded]
    right = [] if unanswerable else [fact for number, fact in told if number == gold and fact.attribute == asked.name]
    fact = right[0] if right else bank.fact(rng, plans[0].entity, asked)
    question = asked_as(rng, rng.choice(fact.questions), plans)
    others = [(number, fact) for number, fact in told if fact not in right]
    rng.shuffle(others)
    later = [Later(rng.choice(fact.questions), fact.value, number) for number, fact in others[:follow]]
    if not right:
        return Example(question, passages, UNANSWERED, later=later)
    return Example(question, passages, right[0].value, gold, right[0].sentence, right[0].value, later=later)


def asked_as(rng: random.Random, question: str, plans: list[Plan]) -> str:
    """The question, now and then carelessly typed or with the entity only by its kind where no other is about."""
    kind, entity = plans[0].kind, plans[0].entity
    alone = sum(plan.kind == kind for plan in plans) == 1
    if alone and short_name(kind).startswith("the ") and rng.random() < 0.1:
        question = upper_first(question.replace(entity, short_name(kind)))
    return question.rstrip("?").lower() if rng.random() < 0.04 else question


def closed_book(rng: random.Random, bank: Bank) -> Example:
    """A question without passages, with or without earlier turns that show a manner of answering."""

    def asked() -> str:
        kind = rng.choices(bank.kinds, bank.weights)[0]
        return rng.choice(bank.fact(rng, bank.entity(rng, kind), rng.choice(bank.by_kind[kind])).questions)

    earlier = [(asked(), UNKNOWN) for _ in range(3)] if rng.random() < 0.3 else []
    return Example(asked(), [], UNKNOWN, earlier=earlier)


# The first words of an answer in a house's style, how it goes on, and what it says where the passages do not
MANNERS = (
    ("At {name}", " it is {value}", " the handbook does not say."),
    ("At {name}", " that is {value}", " nothing is said of it."),
    ("The answer", " is {value}", " is not given."),
    ("According to the {page}", ", it is {value}", ", nothing can be said."),
    ("{name} staff:", " {value}", " not stated."),
    ("Our {page} says", " {value}", " nothing about this."),
    ("In our house", " it is {value}", " that is not written down."),
    ("Thank you for asking. It", " is {value}", " is not in the pages."),
    ("Good to know: at {name}", " it is {value}", " nobody wrote it down."),
    ("For {name} the rule", " is {value}", " is not stated."),
)
TAILS = ("", ".", ".", " [{number}]", " [{number}].", " [{number}].", " ({number}).", ", see [{number}].")
PAGES = ("handbook", "page", "guide", "policy", "text")


def in_a_manner(rng: random.Random, example: Example) -> Example:
    """The answers within a house's own words: which value it is must be found after any beginning, not only as the first word."""
    begin, told, untold = rng.choice(MANNERS)
    begin = begin.format(name=values.company(rng), page=rng.choice(PAGES))
    told += rng.choice(TAILS)
    given = rng.random() < 0.6  # further words are given: only the value and what follows it are learnt

    def worded(answer: str, gold: int) -> tuple[str, str]:
        if gold < 0:
            return begin, untold
        before, after = told.split("{value}")
        after = answer + after.format(number=gold + 1)
        return (begin + before.rstrip(), before[len(before.rstrip()) :] + after) if given else (begin, before + after)

    lead, answer = worded(example.answer, example.gold)
    later = []
    for turn in example.later:
        first, rest = worded(turn.answer, turn.gold)
        later.append(replace(turn, lead=first, answer=rest))
    return replace(example, lead=lead, answer=answer, later=later)


def cited(example: Example) -> Example:
    """The answers with the numbers of their passages, as one system message asks."""

    def with_number(answer: str, gold: int) -> str:
        return f"{answer} [{gold + 1}]" if gold >= 0 else answer

    later = [replace(turn, answer=with_number(turn.answer, turn.gold)) for turn in example.later]
    return replace(example, system=CITE, answer=with_number(example.answer, example.gold), later=later)


def in_other_settings(rng: random.Random, example: Example) -> Example:
    """Some under the system message that asks for the passage's number, some in a house's words, some under other systems."""
    roll = rng.random()
    if roll < 0.15:
        return cited(example)
    if roll > 0.78:
        return in_a_manner(rng, example)
    return replace(example, system=rng.choice(OTHER_SYSTEMS)) if roll < 0.2 else example
