"""Little documents written out by hand (scenes_*.txt) with slots for names and values: the syntax of real pages."""

import random
import re
from dataclasses import dataclass, replace
from pathlib import Path

import values
from bank import rows, upper_first
from examples import UNANSWERED, Example, Fact
from keywords import keyword_question
from neighbours import Words

HERE = Path(__file__).parent
SLOT = re.compile(r"\{([a-z_]+)(?:\.[a-z]+)?\}")
NAMED = re.compile(r"\{=([a-z]+) ([a-z_]+)\}")


@dataclass(frozen=True)
class Line:
    """A sentence with slots, and (slot, question) pairs on it."""

    text: str
    asked: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Scene:
    title: str
    lines: tuple[Line, ...]


def made(rng: random.Random, kind: str) -> str:
    """A value or a name of this kind."""
    if kind == "name_word":
        return values.name_word(rng)
    if kind == "small":
        return values.small(rng)
    if kind == "site_name":
        return values.ENTITIES["site"](rng)
    return values.VALUES[kind](rng)


def load_scenes(folder: Path = HERE) -> list[Scene]:
    """All scenes; a question on a slot that its sentence lacks is an error."""
    found: list[Scene] = []
    for path in sorted(folder.glob("scenes_*.txt")):
        title, lines = "", []
        for row in [*rows(path), "= "]:
            if row.startswith("= "):
                found += [Scene(title, tuple(lines))] if lines else []
                title, lines = row[2:], []
            elif row.startswith("? "):
                slot, question = row[2:].split(": ", 1)
                if f"{{{slot}}}" not in lines[-1].text:
                    raise ValueError(f"{path.name}: no {slot} in {lines[-1].text}")
                lines[-1] = Line(lines[-1].text, (*lines[-1].asked, (slot, question)))
            else:
                lines.append(Line(row, ()))
    return found


def fill(rng: random.Random, text: str, known: dict[str, str]) -> str:
    """The text with every slot filled; the fillings are added to `known`, so that a slot keeps its value."""

    def filling(match: re.Match[str]) -> str:
        slot = match[0][1:-1]
        if slot not in known:
            known[slot] = made(rng, match[1])
        return known[slot]

    return upper_first(SLOT.sub(filling, text))


def staged(rng: random.Random, scene: Scene, lines: list[Line], store: Words | None) -> tuple[str, list[Fact]]:
    """The title and the facts of some lines of a scene, with fresh names and values."""
    names = {name: made(rng, kind) for name, kind in NAMED.findall(scene.title)}
    title = upper_first(NAMED.sub(lambda match: names[match[1]], scene.title))
    facts = []
    for number, line in enumerate(lines):
        known = dict(names)
        sentence = fill(rng, line.text, known)
        for slot in dict.fromkeys(slot for slot, _ in line.asked):
            value = known[slot] if known[slot] in sentence else upper_first(known[slot])
            questions = tuple(fill(rng, question, known) for other, question in line.asked if other == slot)
            kind, name = slot.split(".")[0], next(iter(names.values()), "")
            if store and line.text.count(f"{{{kind}") == 1 and rng.random() < 0.4:
                questions = (keyword_question(rng, sentence.replace(name, " "), value, kind, name, store),)
            facts.append(Fact(title, f"{number}.{slot}", sentence, value, questions))
    return title, facts


def scene_example(rng: random.Random, scenes: list[Scene], follow: int, store: Words | None = None) -> Example:
    """A question on one line, one scene or several shuffled scenes; in a fifth of the cases its line is left out."""
    scene = rng.choice(scenes)
    pages = rng.choice((1, 1, 2, 3, 3))
    lines = rng.sample(scene.lines, len(scene.lines) if pages > 1 or rng.random() < 0.6 else 1)
    title, facts = staged(rng, scene, lines, store)
    asked = rng.choice(facts)
    missing = rng.random() < (0.1 if len(lines) > 1 else 0.03)
    shown = [fact for fact in facts if not missing or fact.sentence != asked.sentence]
    told = [(title, shown)] if shown else []
    twin = title not in asked.questions[0] and not named(title, asked)
    for _ in range(pages - bool(shown) if shown else max(1, pages)):
        other = scene if not twin and rng.random() < 0.3 else rng.choice([item for item in scenes if item is not scene])
        told.append(staged(rng, other, rng.sample(other.lines, rng.randint(2, len(other.lines))), store))
    rng.shuffle(told)
    passages = [
        (rng.choice((head, head, f"{head} > Notes")), " ".join(dict.fromkeys(fact.sentence for fact in page)))
        for head, page in told
    ]
    question = rng.choice(
        [question for question in asked.questions if twin or named(title, replace(asked, questions=(question,)))]
        or asked.questions
    )
    question = question.rstrip("?").lower() if rng.random() < 0.03 else question
    others = [fact for _, page in told for fact in page if fact is not asked]
    later = [(rng.choice(fact.questions), fact.value) for fact in rng.sample(others, min(follow, len(others)))]
    if missing:
        return Example(question, passages, UNANSWERED, later=later)
    gold = next(number for number, (head, page) in enumerate(told) if asked in page and head == title)
    return Example(question, passages, asked.value, gold, asked.sentence, asked.value, later=later)


def named(title: str, fact: Fact) -> bool:
    """Whether each of the fact's questions shares a name with the title, so that a twin of the scene is no answer."""
    names = {word.strip(":,.") for word in title.split() if word[:1].isupper()} - {"The", "School", "Museum"}
    return all(names & set(re.findall(r"\w+", question)) for question in fact.questions)
