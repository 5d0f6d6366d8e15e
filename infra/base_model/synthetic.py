"""The first rungs: facts about random words. They teach addressing by words, apart from any phrasing."""

import random

import values
from bank import upper_first
from examples import UNANSWERED, Example, Fact, Later
from neighbours import Words


def any_value(rng: random.Random, store: Words) -> str:
    if rng.random() < 0.3:
        return " ".join(rng.choice(store.words) for _ in range(rng.choice((1, 1, 2, 3))))
    return values.VALUES[rng.choice(list(values.VALUES))](rng)


def any_entity(rng: random.Random, store: Words) -> str:
    roll = rng.random()
    if roll < 0.3:
        return rng.choice(store.words)
    if roll < 0.5:
        return f"{rng.choice(store.words)} {rng.choice(store.words)}"
    return values.ENTITIES[rng.choice(list(values.ENTITIES))](rng)


def any_attribute(rng: random.Random, store: Words) -> str:
    return " ".join(rng.choice(store.words) for _ in range(rng.choice((1, 1, 2, 2, 3))))


def paraphrased(rng: random.Random, text: str, store: Words, share: float) -> str:
    """Some words replaced by neighbours in meaning."""
    swap = [rng.choice(store.near[word]) if store.near.get(word) and rng.random() < share else word for word in text.split()]
    return " ".join(swap)


def synthetic_fact(rng: random.Random, entity: str, attribute: str, store: Words, rung: str) -> Fact:
    """A fact as the rung tells it: 'recall' (key: value), 'grid' (entity attribute: value), 'template' (sentences)."""
    value = any_value(rng, store)
    if rung == "recall":
        return Fact(entity, attribute, f"{entity}: {value}.", value, (f"{entity}?",))
    if rung == "grid":
        return Fact(
            entity,
            attribute,
            f"{entity} {attribute}: {value}.",
            value,
            (f"{entity} {attribute}?", f"{attribute} {entity}?"),
        )
    sentence = upper_first(rng.choice(values.words("statements")).format(a=attribute, e=entity, v=value))
    asked = paraphrased(rng, attribute, store, 0.35) if rng.random() < 0.5 else attribute
    questions = tuple(upper_first(form.format(a=asked, e=entity)) for form in rng.sample(values.words("questions"), 2))
    return Fact(entity, attribute, sentence, value if value in sentence else upper_first(value), questions)


def grid(rng: random.Random, store: Words, rung: str, entities: int, attributes: int) -> list[list[Fact]]:
    """Facts by entity: every entity with most attributes, so that only both together tell a fact."""
    names = [any_entity(rng, store) for _ in range(entities)]
    keys = [any_attribute(rng, store) for _ in range(attributes)]
    return [
        [synthetic_fact(rng, name, key, store, rung) for key in keys if attributes == 1 or rng.random() < 0.8] for name in names
    ]


def synthetic_example(rng: random.Random, store: Words, rung: str, unanswerable: float, follow: int) -> Example:
    """A question on 1 to 4 passages of synthetic facts, shuffled."""
    entities, attributes = rng.choice(((1, 1), (2, 1), (3, 1), (1, 3), (2, 2), (2, 3), (3, 2), (4, 1), (1, 4), (3, 3)))
    if rung == "recall":
        entities, attributes = rng.choice((2, 3, 4, 6, 8)), 1
    facts = [fact for row in grid(rng, store, rung, entities, attributes) for fact in row]
    if not facts:
        return synthetic_example(rng, store, rung, unanswerable, follow)
    rng.shuffle(facts)
    asked = rng.choice(facts)
    missing = len(facts) > 1 and rng.random() < unanswerable
    shown = [fact for fact in facts if fact is not asked] if missing else facts
    pages = min(len(shown), rng.choice((1, 1, 2, 3, 4)))
    heads = [rng.choice(store.words).capitalize() for _ in range(pages)]
    passages = [(heads[page], " ".join(fact.sentence for fact in shown[page::pages])) for page in range(pages)]
    question = rng.choice(asked.questions)
    others = rng.sample([fact for fact in shown if fact is not asked], min(follow, len(shown) - (not missing)))
    later = [Later(rng.choice(fact.questions), fact.value, shown.index(fact) % pages) for fact in others]
    if missing:
        return Example(question, passages, UNANSWERED, later=later)
    return Example(question, passages, asked.value, shown.index(asked) % pages, asked.sentence, asked.value, later=later)
