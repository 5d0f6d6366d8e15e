"""vLLM, in an environment of its own: a program that tasks/vllm_engine.py starts, and that imports nothing of ours.

It reads one JSON object a line: first what to load, {"model", "dtype", "stops", "most", "memory"}, then any number of
{"prompts": [[token, ...], ...]}. It writes {"loaded": true}, then for each request {"written": [[token, ...], ...]}, their ends
included. It ends with its input, so with whoever started it.
"""

import json
import os
import sys
from typing import Any


def main() -> None:
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # vLLM and its processes print on both
    first = json.loads(sys.stdin.readline())
    model, sampling = loaded(first)
    tell(told, {"loaded": True})
    for line in sys.stdin:
        asked = [{"prompt_token_ids": prompt} for prompt in json.loads(line)["prompts"]]
        made = model.generate(asked, sampling, use_tqdm=False)
        tell(told, {"written": [list(each.outputs[0].token_ids) for each in made]})


def loaded(first: dict[str, Any]) -> tuple[Any, Any]:
    from vllm import LLM, SamplingParams

    model = LLM(
        model=first["model"],
        dtype=first["dtype"],
        max_model_len=-1,  # as long as memory allows, and the model
        skip_tokenizer_init=True,
        enforce_eager=True,  # compiling takes longer than some thousand short answers
        gpu_memory_utilization=first["memory"],  # on a CPU too, despite its name
    )
    sampling = SamplingParams(temperature=0, max_tokens=first["most"], stop_token_ids=first["stops"], detokenize=False)
    return model, sampling


def tell(told: Any, message: dict[str, Any]) -> None:
    told.write(json.dumps(message) + "\n")
    told.flush()


if __name__ == "__main__":
    main()
