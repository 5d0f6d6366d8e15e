import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tasks.errors import InputError
from tasks.generation import Generator
from tasks.lineage import LINEAGE, PIECES, learnt, lineage, lineage_of, made_for
from tasks.records import Record, read_json, write_json

# PEFT asks transformers for a property by its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def record(key: str, question: str, document: str | None) -> Record:
    return {"id": key, "question": question, "document": document, "passages": []}


KNOWN = lineage([record("a", "How deep is the harbour?", "port/harbour"), record("b", "Who sings?", None)])


def test_an_adapter_knows_its_questions_however_they_are_written_and_its_pages_whoever_asks() -> None:
    asked = [
        record("same", "how deep is  the HARBOUR", "port/renamed"),
        record("page", "Is the harbour lit?", "port/harbour"),
        record("new", "When is high tide?", "port/tides"),
        record("silent", "Which moon is it?", None),
    ]
    assert [each["id"] for each in learnt(KNOWN, asked)] == ["same", "page"]


def test_who_does_not_say_what_it_learnt_has_an_empty_lineage(tmp_path: Path) -> None:
    asked = [record("a", "How deep is the harbour?", "port/harbour")]
    assert learnt(lineage_of(None), asked) == learnt(lineage_of(tmp_path), asked) == []
    write_json(tmp_path / LINEAGE, KNOWN)
    assert learnt(lineage_of(tmp_path), asked) == asked


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_base, tmp_path / "base")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """An untrained one that says what it was made for."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "adapter"
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=1, target_modules=["q_proj"]))
    model.save_pretrained(folder)
    write_json(folder / LINEAGE, KNOWN | {"base": made_for(base)})
    return folder


def opened(base: Path, adapter: Path) -> Generator:
    """As evaluation and serving do."""
    return Generator(base, adapter, {"do_sample": False, "max_new_tokens": 1, "dtype": "float32"})


def change_weights(base: Path) -> None:
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] += np.float32(1)
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})


def change_tokenizer(base: Path) -> None:
    write_json(base / "tokenizer.json", read_json(base / "tokenizer.json") | {"normalizer": None})


def change_template(base: Path) -> None:
    with (base / "chat_template.jinja").open("a") as file:
        file.write("!")


@pytest.mark.parametrize(
    ("piece", "change"), [("weights", change_weights), ("tokenizer", change_tokenizer), ("chat template", change_template)]
)
def test_an_adapter_of_another_base_tokenizer_or_template_is_refused_where_it_is_loaded(
    base: Path, adapter: Path, piece: str, change: object
) -> None:
    opened(base, adapter)
    write_json(base / "tandem.json", {"source": "elsewhere"})  # where a model came from is not what it is
    opened(base, adapter)
    assert callable(change) and piece in PIECES
    change(base)
    with pytest.raises(InputError, match=f"adapter was trained with other {piece} than those of .*base.*tandem retrain"):
        opened(base, adapter)


def test_an_adapter_made_elsewhere_that_does_not_say_for_which_base_is_taken(base: Path, adapter: Path) -> None:
    (adapter / LINEAGE).unlink()
    change_weights(base)
    opened(base, adapter)


@pytest.mark.parametrize("name", ["adapter_model.bin", "training_args.bin", "optimizer.pt", "notes", "adapter_model.safetensors"])
def test_a_pickle_in_an_adapter_is_refused_where_it_is_loaded_whatever_its_name(base: Path, adapter: Path, name: str) -> None:
    (adapter / name).write_bytes(pickle.dumps({"w": list(range(1000))}))
    with pytest.raises(InputError, match=name):
        opened(base, adapter)
