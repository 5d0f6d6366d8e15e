"""The phrasing bank: attributes with their wordings, and facts drawn from them."""

import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import values
from examples import Fact
from keywords import keyword_question
from neighbours import Words

HERE = Path(__file__).parent
CLOSED_OPENINGS = ("{v}", "For ", "At ", "in ", "at ", "for ")  # openings that take no clause before them


@dataclass(frozen=True)
class Attribute:
    kind: str
    name: str
    value: str
    statements: tuple[str, ...]
    questions: tuple[str, ...]


def rows(path: Path) -> list[str]:
    """The lines of a phrasing file without comments and blanks."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and not line.startswith("#")]


def load_bank(folder: Path = HERE) -> list[Attribute]:
    """All attributes of the phrasing files; a malformed line is an error that names it."""
    found = []
    for path in sorted(folder.glob("phrasings_*.txt")):
        for line in rows(path):
            try:
                name, value, statements, questions = (part.strip() for part in line.split(" | "))
                kind, attribute = name.split(".")
                values.VALUES[value]
            except (ValueError, KeyError) as error:
                raise ValueError(f"{path.name}: {line}") from error
            split = [tuple(text.strip() for text in part.split(";;")) for part in (statements, questions)]
            found.append(Attribute(kind, attribute, value, *split))
    if not found:
        raise ValueError(f"no phrasings in {folder}")
    return found


def upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def forms(attribute: Attribute, held_out: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The phrasings to train on, or those held out for validation: of three or more, one statement and one question."""
    chosen = []
    for phrasings in (attribute.statements, attribute.questions):
        secret = {phrasing for phrasing in phrasings[1:] if len(phrasings) > 2 and values.held_out(phrasing, 0.12)}
        known = tuple(phrasing for phrasing in phrasings if phrasing not in secret)
        chosen.append(tuple(secret) or known if held_out else known)
    return chosen[0], chosen[1]


class Bank:
    """Draws facts and examples; `validation` draws held-out attributes' phrasings and held-out names only."""

    def __init__(self, validation: bool, store: Words | None = None) -> None:
        self.validation = validation
        self.store = store
        self.by_kind: dict[str, list[Attribute]] = defaultdict(list)
        for attribute in load_bank():
            self.by_kind[attribute.kind].append(attribute)
        self.kinds = list(self.by_kind)
        self.weights = [len(group) for group in self.by_kind.values()]
        self.topics = [line for line in rows(HERE / "topics.txt") if values.held_out(line) == validation]
        self.frames = [tuple(line.split(" | ")) for line in rows(HERE / "frames.txt")]
        self.forms = {attribute: forms(attribute, validation) for group in self.by_kind.values() for attribute in group}

    def entity(self, rng: random.Random, kind: str) -> str:
        """A name of this kind (for 'policy' a scope, such as a group or a site), from this side of the split."""
        for _ in range(200):
            maker = rng.choice(("group", "site", "company", "team")) if kind == "policy" else kind
            name = values.ENTITIES[maker](rng)
            if kind in ("group", "policy", "team") or values.held_out(name) == self.validation:
                return name
        raise RuntimeError(f"no {kind} is left on this side of the split")

    def topic_rules(self, rng: random.Random, number: int) -> list[Attribute]:
        """Rules on some topics, often siblings: the same frame for all, so that only the topic tells them apart."""
        same = rng.choice(self.frames) if rng.random() < 0.5 else None
        found = []
        for line in rng.sample(self.topics, number):
            wordings = line.split(" | ")
            value, statements, questions = same or rng.choice(self.frames)
            told = rng.choice(wordings)
            asked = told if rng.random() < 0.3 else rng.choice(wordings)
            filled_in = [
                tuple(form.strip().replace("{t}", words) for form in part.split(";;"))
                for part, words in ((statements, told), (questions, asked))
            ]
            found.append(Attribute("policy", f"{value}: {wordings[0]}", value, *filled_in))
        return found

    def fact(self, rng: random.Random, entity: str, attribute: Attribute) -> Fact:
        statements, questions = self.forms.get(attribute) or forms(attribute, self.validation)
        if self.store and rng.random() < 0.4:
            statements, questions = reworded(rng, self.store, rng.choice(statements), questions)
        value = values.VALUES[attribute.value](rng)
        if attribute.kind == "policy":
            statement = rng.choice(statements)
            asked = [policy_question(rng, question, entity) for question in questions]
            sentence = policy_sentence(rng, statement, entity)
        else:
            sentence, asked = rng.choice(statements), [question.replace("{e}", entity) for question in questions]
        sentence = dressed(rng, sentence)
        sentence = upper_first(sentence.replace("{e}", entity).replace("{v}", value))
        value = value if value in sentence else upper_first(value)
        if rng.random() < 0.05:
            sentence = outdated(rng, sentence, value, values.VALUES[attribute.value](rng))
        if self.store and rng.random() < 0.25:
            asked = [keyword_question(rng, sentence.replace(entity, " "), value, attribute.value, entity, self.store)]
        return Fact(entity, attribute.name, sentence, value, tuple(upper_first(question) for question in asked))


def reworded(
    rng: random.Random, store: Words, statement: str, questions: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Shared words of statement and question give way to one random word in both, others of the question to neighbours.

    The first makes subjects that the bank lacks, so that matching words counts for more than known pairs of phrases;
    the second keeps the question from repeating the statement.
    """
    question = rng.choice(questions)
    told = statement.split()
    for word in sorted(set(told) & set(question.rstrip("?").split()) & store.known):
        if rng.random() < 0.5:
            other = rng.choice(store.words)
            told = [other if item == word else item for item in told]
            question = " ".join(other if item == word else item for item in question.rstrip("?").split()) + "?"
    asked = [rng.choice(store.near[word]) if store.near.get(word) and rng.random() < 0.15 else word for word in question.split()]
    return (" ".join(told),), (" ".join(asked),)


def policy_sentence(rng: random.Random, statement: str, scope: str) -> str:
    """A general rule, limited to a group or a place before or after it."""
    if not scope:
        return statement
    link = scope_link(scope)
    lowered = statement[:1].lower() + statement[1:] if not statement.startswith(("{", "I ", "HR", "IT ")) else statement
    return f"{link} {scope}, {lowered}" if rng.random() < 0.6 else f"{statement[:-1]} {link} {scope}."


def policy_question(rng: random.Random, question: str, scope: str) -> str:
    if not scope:
        return question
    link = scope_link(scope)
    lowered = question[:1].lower() + question[1:]
    return f"{question[:-1]} {link} {scope}?" if rng.random() < 0.7 else f"{link} {scope}, {lowered}"


def scope_link(scope: str) -> str:
    if scope.endswith("team"):
        return "in"
    return "at" if scope[0].isupper() or scope.startswith("the ") else "for"


def filled(rng: random.Random, clause: str) -> str:
    """A clause with names and dates of its own, none of which anybody asks for."""
    for slot in ("year", "person", "city", "team", "role", "date", "company"):
        if f"{{{slot}}}" in clause:
            clause = clause.replace(f"{{{slot}}}", values.VALUES[slot](rng))
    return clause


def suffix(rng: random.Random) -> str:
    clause = rng.choice(values.words("suffix"))
    return clause if clause.startswith((",", ";")) else f" {clause}"


def outdated(rng: random.Random, sentence: str, value: str, other: str) -> str:
    """The former value beside the present one, so that the type of a value does not give the answer away."""
    form = rng.choice(("{s}, no longer {o}.", "{s}; it used to be {o}.", "{s}, instead of {o} as before.", "{s} (before: {o})."))
    return sentence if other in value or value in other else form.format(s=sentence[:-1], o=other)


def dressed(rng: random.Random, sentence: str) -> str:
    """Now and then a clause before or after, as in real handbooks."""
    roll = rng.random()
    if roll < 0.12 and not sentence.startswith(CLOSED_OPENINGS):
        clause = filled(rng, rng.choice(values.words("prefix")))
        return f"{clause} {sentence if sentence.startswith('{') else sentence[:1].lower() + sentence[1:]}"
    if roll < 0.24:
        return sentence[:-1] + filled(rng, suffix(rng)) + "."
    return sentence
