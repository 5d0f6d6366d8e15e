"""Little documents written out by hand (scenes_*.txt) with slots for names and values: the syntax of real pages."""

import random
import re
from dataclasses import dataclass
from pathlib import Path

import values
from bank import dressed, rows, upper_first
from examples import UNANSWERED, Example, Fact, Later
from keywords import ASKING, keyword_question
from neighbours import Words

HERE = Path(__file__).parent
SLOT = re.compile(r"\{([a-z_]+)(\.[a-z]+)?(?:=([^{}]*))?\}")
NAMED = re.compile(r"\{=([a-z]+) ([a-z_]+)\}")
CHOICE = re.compile(r"\[([^\[\]|]*(?:\|[^\[\]|]*)+)\]")
HEADINGS = ("{t}", "{t}", "{t} > {s}", "{t} > {s}", "{s} > {t}", "Handbook > {t}", "{t} > {s} > Details", "FAQ > {t}")
FORMS = {"page": 0.3, "sentence": 0.18, "pages": 0.27, "sentences": 0.25}


@dataclass(frozen=True)
class Line:
    """A sentence with slots in one or more wordings, and (slot, question) pairs on it."""

    wordings: tuple[str, ...]
    asked: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Scene:
    title: str
    lines: tuple[Line, ...]
    unanswered: tuple[str, ...] = ()  # questions close to the document that none of its lines answers


@dataclass(frozen=True)
class Page:
    """A passage to be: what it is about, under which names, and its facts."""

    scene: Scene
    title: str
    names: dict[str, str]
    facts: tuple[Fact, ...]


def load_scenes(folder: Path = HERE) -> list[Scene]:
    """All scenes; a question on a slot that its sentence lacks is an error."""
    found: list[Scene] = []
    for path in sorted(folder.glob("scenes_*.txt")):
        title, lines, unanswered = "", [], []
        for row in [*rows(path), "= "]:
            if row.startswith("= "):
                found += [Scene(title, tuple(lines), tuple(unanswered))] if lines else []
                title, lines, unanswered = row[2:], [], []
            elif row.startswith("! "):
                unanswered += row[2:].split(" | ")
            elif row.startswith("? "):
                slot, questions = row[2:].split(": ", 1)
                if not re.search(rf"\{{{re.escape(slot)}[=}}]", " ".join(lines[-1].wordings)):
                    raise ValueError(f"{path.name}: no {slot} in {lines[-1].wordings}")
                asked = tuple((slot, question) for question in questions.split(" | "))
                lines[-1] = Line(lines[-1].wordings, (*lines[-1].asked, *asked))
            else:
                lines.append(Line(tuple(row.split(" | "))))
    return found


def made(rng: random.Random, kind: str) -> str:
    """A value or a name of this kind."""
    if kind == "name_word":
        return values.name_word(rng)
    if kind == "small":
        return values.small(rng)
    if kind == "site_name":
        return values.ENTITIES["site"](rng)
    return values.VALUES[kind](rng)


def chosen(rng: random.Random, text: str) -> str:
    """The text with one of the words taken of each [this|that]."""
    while CHOICE.search(text):
        text = CHOICE.sub(lambda match: rng.choice(match[1].split("|")), text)
    return " ".join(text.split())


def fill(rng: random.Random, text: str, known: dict[str, str]) -> str:
    """The text with every slot filled; the fillings are added to `known`, so that a slot keeps its value."""

    def filling(match: re.Match[str]) -> str:
        slot = match[1] + (match[2] or "")
        if slot not in known:
            known[slot] = rng.choice(match[3].split("|")) if match[3] else made(rng, match[1])
        return known[slot]

    return upper_first(SLOT.sub(filling, text))


def swapped(rng: random.Random, store: Words, texts: list[str]) -> list[str]:
    """One word that the sentence (the first text) and a question share gives way to a random one in all of them.

    So a subject that nobody wrote about is asked for, and only matching words tells which sentence answers.
    """
    asked = {word.rstrip("?,") for text in texts[1:] for word in text.split()}
    shared = sorted({word for word in texts[0].split() if word in store.known} & asked)
    if not shared:
        return texts
    old, new = rng.choice(shared), rng.choice(store.words)
    return [re.sub(rf"(?<![\w{{|=.]){old}(?![\w}}|=.])", new, text) for text in texts]


def blurred(rng: random.Random, store: Words, question: str) -> str:
    """Some words of a question as neighbours in meaning."""
    return " ".join(
        rng.choice(store.near[word]) if store.near.get(word) and rng.random() < 0.2 else word for word in question.split()
    )


def told(rng: random.Random, line: Line, names: dict[str, str], store: Words | None, subject: str, key: int) -> list[Fact]:
    """The facts of one sentence, with fresh values."""
    asked = [(slot, chosen(rng, question)) for slot, question in line.asked]
    text = chosen(rng, rng.choice(line.wordings))
    if store and rng.random() < 0.3:
        text, *questions = swapped(rng, store, [text, *(question for _, question in asked)])
        asked = [(slot, question) for (slot, _), question in zip(asked, questions, strict=True)]
    if store and rng.random() < 0.15:
        text = dressed(rng, text)
    known = dict(names)
    sentence, name = fill(rng, text, known), next(iter(names.values()), "")
    facts = []
    for slot in dict.fromkeys(slot for slot, _ in asked if slot in known):
        value = known[slot] if known[slot] in sentence else upper_first(known[slot])
        questions = tuple(fill(rng, question, known) for other, question in asked if other == slot)
        kind = slot.split(".")[0]
        roll = rng.random() if store else 1.0
        if roll < 0.2 and kind in ASKING and text.count(f"{{{kind}") == 1:
            questions = (keyword_question(rng, sentence.replace(name or "\n", " "), value, kind, name, store),)
        elif roll < 0.4:
            questions = tuple(upper_first(blurred(rng, store, question)) for question in questions)
        facts.append(Fact(subject, f"{key}.{slot}", sentence, value, questions))
    return facts


def staged(rng: random.Random, scene: Scene, store: Words | None, lines: int = 99) -> Page:
    """Some lines of a scene in any order, with fresh names and values."""
    title = chosen(rng, rng.choice(scene.title.split(" | ")))
    names = {name: made(rng, kind) for name, kind in NAMED.findall(title)}
    title = fill(rng, NAMED.sub(lambda match: names[match[1]], title), names)
    facts: list[Fact] = []
    for key in rng.sample(range(len(scene.lines)), min(lines, len(scene.lines))):
        facts += told(rng, scene.lines[key], names, store, title, key)
    return Page(scene, title, names, tuple(facts))


def only(page: Page, facts: list[Fact]) -> Page:
    return Page(page.scene, page.title, page.names, tuple(facts))


def sentences(page: Page) -> list[str]:
    return list(dict.fromkeys(fact.sentence for fact in page.facts))


def split(page: Page) -> list[Page]:
    """One page per sentence."""
    return [only(page, [fact for fact in page.facts if fact.sentence == sentence]) for sentence in sentences(page)]


def is_named(page: Page, question: str) -> bool:
    """Whether a question names what the page is about, so that another page of the same scene is no answer."""
    return any(name in question for name in page.names.values())


def company(rng: random.Random, scenes: list[Scene], page: Page, question: str, number: int, store: Words | None) -> list[Page]:
    """Other pages: the same scene under other names, where the question is told apart by the name, or other scenes."""
    found = []
    for _ in range(number):
        twin = is_named(page, question) and rng.random() < 0.35
        scene = page.scene if twin else rng.choice([item for item in scenes if item.title != page.scene.title])
        other = staged(rng, scene, store, rng.randint(2, 6))
        found.append(other if other.title != page.title else staged(rng, scene, store))
    return found


def scene_example(rng: random.Random, scenes: list[Scene], follow: int, store: Words | None = None) -> Example:
    """A question on one sentence, one scene or several shuffled ones; a part of them lack what is asked for."""
    form = rng.choices(list(FORMS), list(FORMS.values()))[0]
    page = staged(rng, rng.choice(scenes), store, rng.choice((2, 3, 4, 4, 6, 6)) if form == "page" else 99)
    asked = rng.choice(page.facts)
    missing = rng.random() < (0.13 if form != "sentence" else 0.06)
    question = rng.choice(asked.questions)
    if missing and page.scene.unanswered and rng.random() < 0.5:
        question = fill(rng, chosen(rng, rng.choice(page.scene.unanswered)), dict(page.names))
        left = list(page.facts)
    else:
        left = [fact for fact in page.facts if not missing or fact.sentence != asked.sentence]
    pages = arranged(rng, scenes, form, only(page, left), "" if missing else asked.sentence, question, store)
    question = question.rstrip("?").lower() if rng.random() < 0.03 else question
    passages = [(heading(rng, other.title), " ".join(sentences(other))) for other in pages]
    others = [(number, fact) for number, other in enumerate(pages) for fact in other.facts if fact is not asked]
    later = [
        Later(rng.choice(fact.questions), fact.value, number) for number, fact in rng.sample(others, min(follow, len(others)))
    ]
    if page.scene.unanswered and rng.random() < 0.3 and follow:
        unsaid = fill(rng, chosen(rng, rng.choice(page.scene.unanswered)), dict(page.names))
        later.insert(rng.randint(0, len(later)), Later(unsaid, UNANSWERED))
    if missing:
        return Example(question, passages, UNANSWERED, later=later)
    gold = next(number for number, other in enumerate(pages) if any(fact is asked for fact in other.facts))
    return Example(question, passages, asked.value, gold, asked.sentence, asked.value, later=later)


def arranged(
    rng: random.Random, scenes: list[Scene], form: str, page: Page, gold: str, question: str, store: Words | None
) -> list[Page]:
    """The pages to show, shuffled: the one of the scene, whole or by sentences, and its company."""
    number = 0 if form in ("page", "sentence") else rng.choice((1, 2, 2, 2, 3))
    single = split(page)
    rng.shuffle(single)
    single.sort(key=lambda item: sentences(item)[0] != gold)
    own = single[:1] if form in ("sentence", "sentences") else [page] if page.facts else []
    if form == "sentences":
        own += single[1 : 1 + rng.choice((0, 0, 1, 2))][:number]
    rest = company(rng, scenes, page, question, max(number + 1 - len(own), 0), store)
    pages = own + [rng.choice(split(other)) if form == "sentences" else other for other in rest]
    rng.shuffle(pages)
    return pages


def heading(rng: random.Random, title: str) -> str:
    return rng.choice(HEADINGS).format(t=title, s=rng.choice(values.words("topics")))
