"""Makers of names and values. Each maker draws from a `random.Random`; held-out names are split off by a digest."""

import hashlib
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path


def words(name: str) -> list[str]:
    """One list of words.txt, where a list's name ends with a colon and bars part its entries."""
    return word_lists()[name]


@cache
def word_lists() -> dict[str, list[str]]:
    lists: dict[str, str] = {}
    current = ""
    for line in Path(__file__).with_name("words.txt").read_text(encoding="utf-8").splitlines():
        if line.endswith(":") and not line.startswith(" "):
            current = line[:-1]
            lists[current] = ""
        elif not line.startswith("#"):
            lists[current] += f"{line} "
    return {name: [" ".join(entry.split()) for entry in text.split("|")] for name, text in lists.items()}


def invented(rng: random.Random) -> str:
    return "".join(rng.choice(words("syllable")) for _ in range(rng.choice((2, 2, 3)))).capitalize()


def name_word(rng: random.Random) -> str:
    return rng.choice(words("wordname")) if rng.random() < 0.6 else invented(rng)


def person(rng: random.Random) -> str:
    last = rng.choice(words("last")) if rng.random() < 0.75 else invented(rng)
    first = rng.choice(words("first"))
    return rng.choice((f"{first} {last}", f"{first} {last}", f"{first} {last}", f"Dr {last}", first))


def amount(rng: random.Random, low: int, high: int) -> int:
    """A round-ish number, small ones more often."""
    number = int(low * (high / low) ** rng.random())
    return number if number < 20 or rng.random() < 0.4 else round(number, -1 if number < 300 else -2) or number


def money(rng: random.Random) -> str:
    number = amount(rng, 2, 90000)
    text = f"{number:,}" if rng.random() < 0.6 else str(number)
    cents = f".{rng.randrange(5, 100, 5):02d}" if number < 200 and rng.random() < 0.2 else ""
    forms = (
        f"{text}{cents} euros",
        f"{text}{cents} EUR",
        f"€{text}{cents}",
        f"${text}{cents}",
        f"{text} dollars",
        f"£{text}{cents}",
        f"{text} pounds",
        f"{text} francs",
        f"{text} euros",
    )
    return rng.choice(forms)


def small(rng: random.Random) -> str:
    number = amount(rng, 2, 120)
    return rng.choice(words("number")) if rng.random() < 0.2 else str(number)


def duration(rng: random.Random) -> str:
    unit = rng.choice(
        [
            "days",
            "days",
            "days",
            "weeks",
            "weeks",
            "months",
            "months",
            "years",
            "hours",
            "hours",
            "minutes",
            "minutes",
            "working_days",
            "seconds",
            "business_days",
            "calendar_days",
        ]
    ).replace("_", " ")
    return f"{small(rng)} {unit}" if rng.random() < 0.95 else f"one {unit[:-1]}"


def count(rng: random.Random) -> str:
    return f"{amount(rng, 2, 40000):,}" if rng.random() < 0.7 else small(rng)


def percent(rng: random.Random) -> str:
    number = rng.choice(
        (str(rng.randrange(1, 100)), str(rng.randrange(5, 100, 5)), f"{rng.randrange(1, 99)}.{rng.randrange(1, 10)}")
    )
    return f"{number}{rng.choice(('%', ' %', ' percent', '%'))}"


def clock(rng: random.Random) -> str:
    hour, minute = rng.randrange(0, 24), rng.choice((0, 0, 15, 30, 45, 30, 10, 20))
    if rng.random() < 0.7:
        return f"{hour:02d}:{minute:02d}" if rng.random() < 0.7 else f"{hour}:{minute:02d}"
    half = "am" if hour < 12 else "pm"
    return rng.choice(
        (
            f"{hour % 12 or 12} {half}",
            f"{hour % 12 or 12}:{minute:02d} {half}",
            "noon",
            "midnight",
            f"{hour % 12 or 12} {half}",
        )
    )


def date(rng: random.Random) -> str:
    day, month, year = rng.randrange(1, 29), rng.choice(words("month")), rng.randrange(1960, 2031)
    forms = (
        f"{day} {month}",
        f"{day} {month} {year}",
        f"{month} {day}",
        f"{year}-{words('month').index(month) + 1:02d}-{day:02d}",
        f"{month} {year}",
        f"{day} {month}",
        f"1 {month}",
        f"{month} {day}, {year}",
    )
    return rng.choice(forms)


def year(rng: random.Random) -> str:
    return str(rng.randrange(1890, 2035))


def weekday(rng: random.Random) -> str:
    day = rng.choice(words("weekday"))
    return rng.choice(
        (
            day,
            day,
            f"every {day}",
            f"the first {day} of the month",
            f"{day} morning",
            f"{day} afternoon",
            f"the {rng.choice(words('rank'))} {day} of each month",
            day,
        )
    )


def room(rng: random.Random) -> str:
    kind = rng.choice(words("roomkind"))
    forms = (
        f"room {rng.randrange(1, 900)}",
        f"the {rng.choice(words('wordname'))} {kind}",
        f"{rng.choice('ABCDEFGH')}{rng.randrange(1, 500)}",
        f"room {rng.choice('ABCDEF')}{rng.randrange(1, 60)}",
        f"building {rng.choice('ABCDEFGH1234567')}",
        f"bay {rng.randrange(1, 60)}",
    )
    return rng.choice(forms)


def place(rng: random.Random) -> str:
    return rng.choice((rng.choice(words("area")), rng.choice(words("city")), room(rng), rng.choice(words("area"))))


def code(rng: random.Random) -> str:
    letters = "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.choice((1, 2, 2, 3, 3))))
    number = rng.randrange(1, 10 ** rng.choice((2, 3, 3, 4)))
    return rng.choice(
        (
            f"{letters}-{number}",
            f"{letters}-{number:02d}",
            f"{letters}{number}",
            f"{number}-{letters}",
            f"{letters}/{number}",
        )
    )


def extension(rng: random.Random) -> str:
    return rng.choice(
        (
            str(rng.randrange(100, 10000)),
            f"+{rng.randrange(1, 99)} {rng.randrange(10, 99)} {rng.randrange(1000, 9999)}",
            f"0{rng.randrange(100, 999)} {rng.randrange(100000, 999999)}",
        )
    )


def system(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return rng.choice(words("technology"))
    end = rng.choice(("Desk", "Hub", "Track", "Base", "Flow", "Point", "Vault", "Board", "", "", "", ""))
    word = name_word(rng)
    return word + end if end else word


def company(rng: random.Random) -> str:
    word = name_word(rng)
    return f"{word} {rng.choice(words('company_end'))}" if rng.random() < 0.65 else word


def team(rng: random.Random) -> str:
    return f"the {rng.choice(words('team'))} team"


def email(rng: random.Random) -> str:
    return f"{rng.choice(words('team'))}@{name_word(rng).lower()}.{rng.choice(('com', 'org', 'net', 'example'))}"


def weight(rng: random.Random) -> str:
    unit = rng.choice(
        (
            "kg",
            "kilograms",
            "litres",
            "metres",
            "m",
            "cm",
            "degrees",
            "°C",
            "km",
            "tonnes",
            "km/h",
            "bar",
            "watts",
            "kWh",
            "millimetres",
            "mm",
            "grams",
            "degrees Celsius",
            "kilometres",
            "square metres",
        )
    )
    return f"{amount(rng, 2, 5000):,} {unit}"


def size(rng: random.Random) -> str:
    return f"{amount(rng, 2, 2000)} {rng.choice(('MB', 'GB', 'TB', 'GB', 'megabytes', 'gigabytes', 'pages', 'KB'))}"


def version(rng: random.Random) -> str:
    return rng.choice(
        (
            f"{rng.randrange(1, 30)}.{rng.randrange(0, 20)}",
            f"version {rng.randrange(1, 12)}",
            f"v{rng.randrange(1, 9)}.{rng.randrange(0, 30)}",
        )
    )


def people(rng: random.Random) -> str:
    return f"{small(rng)} {rng.choice(words('people_noun'))}"


def items(rng: random.Random) -> str:
    return f"{amount(rng, 2, 900)} {rng.choice(words('item_noun'))}"


def owner(rng: random.Random) -> str:
    return rng.choice((person(rng), person(rng), rng.choice(words("role")), team(rng)))


def hours(rng: random.Random) -> str:
    start = rng.randrange(5, 12)
    end = rng.randrange(start + 3, 24)
    return rng.choice(
        (f"{start:02d}:00 to {end:02d}:00", f"{start:02d}:30 to {end:02d}:00", f"{start} am to {(end - 1) % 12 + 1} pm")
    )


def rate(rng: random.Random) -> str:
    return f"{money(rng)} per {rng.choice(words('per_noun'))}"


def either(name: str) -> Callable[[random.Random], str]:
    return lambda rng: rng.choice(words(name))


LISTS = "area channel city colour condition food format frequency item language material month reason role technology"
MADE = (
    clock, code, company, count, date, duration, email, extension, hours, items, money, owner, people, percent, person,
    place, rate, room, size, system, team, version, weekday, weight, year,
)  # fmt: skip
VALUES: dict[str, Callable[[random.Random], str]] = {name: either(name) for name in LISTS.split()} | {
    maker.__name__: maker for maker in MADE
}


def called(nouns: str, names: str = "", share: float = 0.0) -> Callable[[random.Random], str]:
    """Makes "the Falcon printer": a noun of one list after an invented name or, in `share` of cases, one of a list."""

    def make(rng: random.Random) -> str:
        name = rng.choice(words(names)) if rng.random() < share else name_word(rng)
        return f"the {name} {rng.choice(words(nouns))}"

    return make


def project(rng: random.Random) -> str:
    return f"project {name_word(rng)}" if rng.random() < 0.5 else called("project_noun")(rng)


def device(rng: random.Random) -> str:
    name = rng.choice((code(rng), name_word(rng), f"{name_word(rng)} {rng.randrange(2, 900)}"))
    return f"the {name} {rng.choice(words('device_noun'))}"


ENTITIES: dict[str, Callable[[random.Random], str]] = {
    "company": company,
    "site": called("site_noun", "city", 0.6),
    "team": team,
    "system": system,
    "project": project,
    "plan": called("plan_noun", "plan_name", 0.3),
    "device": device,
    "room": called("room_noun"),
    "course": called("course_noun", "course_name", 0.6),
    "vendor": company,
    "event": called("event_noun", "event_name", 0.4),
    "group": either("group"),
    "person": person,
    "product": called("product_noun"),
}


def held_out(name: str, share: float = 0.1) -> bool:
    """Whether a name belongs to the validation side; stable over runs and machines."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32 < share
