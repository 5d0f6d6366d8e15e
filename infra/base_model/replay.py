"""Little readings of general matters as chat messages, for `replay_share` in params/examples.yaml.

`python replay.py > ../replay/general.jsonl`. Drawn from scenes that the built-in model was trained on, not from its test sets.
"""

import json
import random

import scenes
import values
from examples import user_content

COUNT, MOST_LETTERS, SEED = 160, 900, 3


def main() -> None:
    rng = random.Random(SEED)
    trained = [scene for scene in scenes.load_scenes() if not values.held_out(scene.title, 0.1)]
    asked: set[str] = set()
    while len(asked) < COUNT:
        drawn = scenes.scene_example(rng, trained, 0)
        content = user_content(drawn.question, drawn.passages)
        if drawn.question in asked or len(content) > MOST_LETTERS:
            continue
        asked.add(drawn.question)
        record = {
            "id": f"replay-{len(asked):03}",
            "question": drawn.question,
            "prompt": [{"role": "user", "content": content}],
            "completion": [{"role": "assistant", "content": drawn.answer}],
        }
        print(json.dumps(record, ensure_ascii=False))


if __name__ == "__main__":
    main()
