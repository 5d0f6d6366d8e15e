"""Questions made of a sentence's own key words: matching by words and by type of answer, free of any phrasing."""

import random

from neighbours import Words

ASKING = {
    "money": "How much|What does it cost|What is the price|What fee|How expensive",
    "rate": "How much|What rate|What is paid",
    "duration": "How long|For how long|Within what time|After how long|How much time|How soon",
    "count": "How many|What number",
    "small": "How many|What number",
    "people": "How many people|How many",
    "items": "How many|How much",
    "percent": "How much|What percentage|What share|By how much",
    "clock": "When|At what time|By what time|What time",
    "hours": "When|During which hours|What are the hours",
    "date": "When|On what date|By which date|What is the deadline",
    "year": "When|In which year|Since when",
    "month": "When|In which month",
    "weekday": "When|On which day|What day",
    "owner": "Who|Whom|To whom|By whom",
    "person": "Who|Whom|Which person|By whom",
    "role": "Who|Whom|Whose approval",
    "team": "Who|Which team",
    "company": "Who|Which company|Which firm|What organisation",
    "place": "Where|In which place",
    "area": "Where|In which place",
    "room": "Where|In which room|Which room",
    "city": "Where|In which city",
    "system": "Where|Which system|What tool|With what",
    "technology": "What|Which technology|In what",
    "code": "Which code|Which form|What number|Which",
    "extension": "Which number|What number|How can one call",
    "email": "Which address|Where does one write",
    "channel": "How|By what means|In what way",
    "frequency": "How often|How frequently|When",
    "condition": "When|Under what condition|In which case",
    "reason": "Why|For what reason",
    "colour": "What colour|Which colour",
    "material": "What|Which material|Of what",
    "item": "What|Which thing",
    "weight": "How much|What limit|How heavy|At what",
    "size": "How large|How much|What size",
    "language": "Which language|In what language",
    "format": "Which format|In what format",
    "food": "What|Which food",
    "version": "Which version|What version",
}


def key_words(rng: random.Random, sentence: str, value: str, store: Words) -> list[str]:
    """Two to six content words of a sentence without its value, in order or shuffled, some as neighbours in meaning."""
    bare = [word.strip(",.;:()?!").lower() for word in sentence.replace(value, " ").split()]
    content = [word for word in bare if word in store.known]
    chosen = [word for word in content if rng.random() < 0.6][:6] or content[:3]
    if rng.random() < 0.4:
        rng.shuffle(chosen)
    return [rng.choice(store.near[word]) if store.near.get(word) and rng.random() < 0.35 else word for word in chosen]


def keyword_question(rng: random.Random, sentence: str, value: str, kind: str, name: str, store: Words) -> str:
    """'How long summer closure nursery Falcon?': the kind of answer, key words, and the name of what it is about."""
    words = key_words(rng, sentence, value, store)
    words.insert(rng.randint(0, len(words)), name) if name else None
    return " ".join(" ".join([rng.choice(ASKING[kind].split("|")), *words]).split()) + "?"
