"""Which examples are drawn at which stage of the training."""

import random

import neighbours
import prose
import scenes
import synthetic
import values
from bank import Bank
from examples import Example

MAX_FOLLOW = 4  # further questions on the same passages after the first answer


class Sampler:
    """Draws examples by the shares of the current stage; a stage ends when its gate kinds are answered well enough."""

    def __init__(self, stages: list[dict]) -> None:
        self.stages = stages
        self.stage = 0
        self.store = neighbours.word_store(150, 9000, 0.38)
        self.scenes = [scene for scene in scenes.load_scenes() if not values.held_out(scene.title, 0.1)]
        self.bank = Bank(validation=False, store=self.store)

    def draw(self, rng: random.Random, number: int) -> list[tuple[str, Example]]:
        shares = self.stages[self.stage]["shares"]
        kinds = rng.choices(list(shares), list(shares.values()), k=number)
        return [(kind, self.make(rng, kind)) for kind in kinds]

    def make(self, rng: random.Random, kind: str) -> Example:
        if kind in ("recall", "grid", "template"):
            return synthetic.synthetic_example(rng, self.store, kind, 0.12, 8 if kind == "recall" else MAX_FOLLOW)
        if kind == "scene":
            return prose.in_other_settings(rng, scenes.scene_example(rng, self.scenes, rng.choice((2, 4, 6, 8)), self.store))
        if kind == "closed":
            return prose.closed_book(rng, self.bank)
        return prose.in_other_settings(rng, prose_kind(rng, self.bank, kind))

    def advance(self, first: dict[str, list[float]]) -> bool:
        """Move to the next stage where every gate is passed; says whether it moved."""
        gates = self.stages[self.stage].get("gate", {})
        if self.stage + 1 == len(self.stages) or not gates:
            return False
        if any(len(first.get(kind, ())) < 300 or sum(first[kind]) / len(first[kind]) < least for kind, least in gates.items()):
            return False
        self.stage += 1
        return True


def prose_kind(rng: random.Random, bank: Bank, kind: str) -> Example:
    """'one' passage with one fact, with 'three' facts, several 'pages', or the same with 'none' that answers."""
    follow = rng.choice((2, 3, 5, 7))
    if kind == "one":
        return prose.prose_example(rng, bank, 1, 1, False, 0)
    if kind == "three":
        return prose.prose_example(rng, bank, 1, rng.choice((2, 3, 3, 4)), False, follow)
    if kind == "pages":
        return prose.prose_example(rng, bank, rng.choice((2, 3, 3, 3, 4, 5)), rng.choice((1, 2, 3, 3)), False, follow)
    if kind == "none":
        pages = rng.choice((1, 1, 2, 3, 3, 4))
        return prose.prose_example(rng, bank, pages, rng.choice((2, 3, 4) if pages == 1 else (1, 2, 3)), True, follow)
    raise ValueError(f"no kind of example is called {kind!r}")
