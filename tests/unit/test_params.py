import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import tasks.params
from tasks.errors import InputError
from tasks.params import AdapterParams, ChunksParams, IndexParams, ModelsParams, PromptParams, QuestionsParams
from tasks.params_files import Params, load
from tasks.params_verdict import EvaluateParams, GateParams

SHIPPED = Path(tasks.params.__file__).parents[1] / "params"
KINDS = Params.__subclasses__()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "params"))


def change(folder: Path, kind: type[Params], **values: Any) -> None:
    path = folder / kind.file
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))


def message(kind: type[Params], folder: Path) -> str:
    with pytest.raises(InputError) as found:
        load(kind, folder)
    assert found.value.exit_code == 2
    return str(found.value)


def test_every_file_in_params_belongs_to_one_class_and_is_valid() -> None:
    assert sorted(kind.file for kind in KINDS) == sorted(path.name for path in SHIPPED.glob("*.yaml"))
    assert len(KINDS) >= 10
    for kind in KINDS:
        assert load(kind, SHIPPED).model_dump() == yaml.safe_load((SHIPPED / kind.file).read_text())


def test_a_typo_names_the_file_the_key_and_the_nearest_one(folder: Path) -> None:
    path = folder / "adapter.yaml"
    path.write_text(path.read_text().replace("rank:", "rnak:"))
    said = message(AdapterParams, folder)
    assert "adapter.yaml: rnak: unknown key; did you mean rank?" in said
    assert "adapter.yaml: rank: missing; params files are complete, there is no default" in said


def test_a_typo_inside_a_group_names_the_nearest_key_of_that_group(folder: Path) -> None:
    path = folder / "gate.yaml"
    path.write_text(path.read_text().replace("  abstention: 0.5", "  abstenton: 0.5"))
    assert "gate.yaml: floors.abstenton: unknown key; did you mean abstention?" in message(GateParams, folder)


def test_a_key_that_resembles_none_is_to_be_removed(folder: Path) -> None:
    change(folder, ChunksParams, zzz=1)
    assert "chunks.yaml: zzz: unknown key; remove it" in message(ChunksParams, folder)


@pytest.mark.parametrize("value", ["16", 16.5, True, None, [16], "sixteen"])
def test_another_type_than_the_one_asked_for_is_refused_and_shown(folder: Path, value: Any) -> None:
    change(folder, AdapterParams, rank=value)
    said = message(AdapterParams, folder)
    assert "adapter.yaml: rank: " in said
    assert f"(found {value!r})" in said


@pytest.mark.parametrize("text", [".nan", ".inf", "-.inf"])
def test_what_is_no_number_is_refused(folder: Path, text: str) -> None:
    path = folder / "adapter.yaml"
    path.write_text(re.sub(r"learning_rate: [0-9.]+", f"learning_rate: {text}", path.read_text()))
    assert "learning_rate" in message(AdapterParams, folder)


def test_a_key_that_stands_twice_is_refused_though_yaml_would_take_the_last(folder: Path) -> None:
    path = folder / "gate.yaml"
    path.write_text(path.read_text() + "margin: 0.5\n")
    assert "key 'margin' stands twice" in message(GateParams, folder)
    path.write_text(path.read_text().replace("margin: 0.5\n", "").replace("  fact: 0.6", "  fact: 0.6\n  fact: 0.7"))
    assert "key 'fact' stands twice" in message(GateParams, folder)


@pytest.mark.parametrize("text", ["", "just words", "- a\n- list", "a: [1,", "\x00"])
def test_a_file_that_is_no_mapping_is_refused_with_its_name(folder: Path, text: str) -> None:
    (folder / "chunks.yaml").write_text(text)
    assert "chunks.yaml" in message(ChunksParams, folder)


def test_an_alias_is_refused_as_a_few_lines_of_them_stand_for_billions_of_values(folder: Path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)), "max_words: *a11"]
    (folder / "chunks.yaml").write_text("\n".join(lines))
    assert re.search(r"chunks\.yaml: not valid YAML: write out what \*a0 stands for.*line 2", message(ChunksParams, folder), re.S)


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    (folder / "chunks.yaml").write_bytes(b"max_words: \xff60\n")
    assert "chunks.yaml: not valid YAML" in message(ChunksParams, folder)


def test_a_missing_file_is_named_with_the_command_that_restores_it(tmp_path: Path) -> None:
    assert "git checkout" in message(ChunksParams, tmp_path)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ({"source": "hub", "id": "org/model", "revision": ""}, "the full 40-digit commit"),
        ({"source": "hub", "id": "org/model", "revision": "main"}, "branches move"),
        ({"source": "hub", "id": "org/model", "revision": "g" * 40}, "the full 40-digit commit"),
        ({"source": "hub", "id": "", "revision": "a" * 40}, "needs `id`"),
        ({"source": "folder", "id": "", "revision": ""}, "a folder model needs its path"),
        ({"source": "ftp", "id": "", "revision": ""}, "builtin"),
    ],
)
def test_a_model_that_could_move_or_cannot_be_found_is_refused(folder: Path, source: dict[str, str], fault: str) -> None:
    change(folder, ModelsParams, base=source)
    said = message(ModelsParams, folder)
    assert "models.yaml: base" in said and fault in said


def test_a_hub_model_at_a_full_commit_is_accepted(folder: Path) -> None:
    change(folder, ModelsParams, base={"source": "hub", "id": "org/model", "revision": "0123456789" * 4})
    assert load(ModelsParams, folder).base.id == "org/model"


def test_shares_and_weights_must_add_up(folder: Path) -> None:
    change(folder, QuestionsParams, train=0.6)
    assert "must add up to 1" in message(QuestionsParams, folder)
    change(folder, GateParams, primary={"fact": 0.6, "citation": 0.2, "style": 0.3})
    assert "must add up to 1" in message(GateParams, folder)


def test_bounds_are_told(folder: Path) -> None:
    change(folder, ChunksParams, max_words=3)
    assert "greater than or equal to 8 (found 3)" in message(ChunksParams, folder)
    change(folder, IndexParams, batch_tokens=0)
    assert "batch_tokens" in message(IndexParams, folder)


GATE_KEYS = ("margin", "alpha", "horizon", "min_questions", "slice_questions", "min_recall", "floors", "cost", "primary")


@pytest.mark.parametrize("key", GATE_KEYS)
def test_a_threshold_that_is_missing_is_no_threshold_of_zero(folder: Path, key: str) -> None:
    path = folder / GateParams.file
    path.write_text(yaml.safe_dump({name: value for name, value in yaml.safe_load(path.read_text()).items() if name != key}))
    assert re.search(rf"gate\.yaml: {key}: .*missing", message(GateParams, folder))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("margin", 0), ("margin", 1.5), ("margin", -0.1), ("alpha", 0), ("alpha", 0.5), ("min_questions", 0), ("horizon", 0),
        ("min_recall", 1.01), ("floors", {"primary": 1.2, "fact": 0.5, "abstention": 0.5}),
        ("floors", {"primary": 0.5, "fact": 0.5}), ("resamples", 10),
        ("cost", {"prompt_token": -1, "completion_token": 4, "retrieval": 0, "adapter": 0}),
    ],
)  # fmt: skip
def test_a_threshold_out_of_range_is_refused_with_its_key(folder: Path, key: str, value: Any) -> None:
    change(folder, GateParams, **{key: value})
    assert f"gate.yaml: {key}" in message(GateParams, folder)


@pytest.mark.parametrize(("key", "value"), [("currency", "euro"), ("machine_hour", -1.0), ("prompt_tokens", "cheap")])
def test_a_price_that_is_none_is_refused_with_its_key(folder: Path, key: str, value: Any) -> None:
    prices = {"currency": "EUR", "prompt_tokens": 0, "completion_tokens": 0, "machine_hour": 0}
    change(folder, EvaluateParams, prices=prices | {key: value})
    assert f"evaluate.yaml: prices.{key}" in message(EvaluateParams, folder)


def test_an_arm_that_does_not_exist_is_refused(folder: Path) -> None:
    change(folder, PromptParams, shots={"prompt": 3, "rga": 0, "lora": 0, "rag+lora": 0})
    assert "prompt.yaml: shots" in message(PromptParams, folder)


def test_an_arm_without_a_number_of_shots_is_refused(folder: Path) -> None:
    change(folder, PromptParams, shots={"prompt": 3})
    said = message(PromptParams, folder)
    assert "prompt.yaml" in said and "`shots`" in said and "rag is missing" in said


def test_an_arm_with_an_adapter_has_no_shots_as_the_adapter_learnt_without(folder: Path) -> None:
    change(folder, PromptParams, shots={"prompt": 3, "rag": 0, "rag+lora": 2})
    assert "`shots` of rag+lora: an adapter learns from examples without shots" in message(PromptParams, folder)


@pytest.mark.parametrize(
    ("key", "text"), [("citation", " ({number})"), ("citation", " [source]"), ("passage", "{number}: {text}")]
)
def test_a_house_that_cites_does_so_in_the_form_that_is_recognised(folder: Path, key: str, text: str) -> None:
    change(folder, PromptParams, **{key: text})
    assert f"`{key}` needs [{{number}}]" in message(PromptParams, folder)


def test_a_house_that_does_not_cite_needs_no_numbers(folder: Path) -> None:
    change(folder, PromptParams, citation="", passage="{text}")
    assert load(PromptParams, folder).citation == ""


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("bare", "Question: {qestion}"),
        ("bare", "no question at all"),
        ("with_passages", "{question}"),
        ("passage", "[{number}] {text} {page}"),
        ("passage", "{text"),
        ("citation", " [{}]"),
        ("citation", " [source]"),
    ],
)
def test_a_template_that_leaves_out_or_misspells_a_placeholder_is_refused(folder: Path, key: str, text: str) -> None:
    change(folder, PromptParams, **{key: text})
    assert "prompt.yaml: " in message(PromptParams, folder)


def test_params_cannot_be_changed_once_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(ChunksParams, SHIPPED).max_words = 1  # type: ignore[misc]
