"""dvc.yaml, the stages' signatures, params/ and the imports say the same thing. DVC sees none of the last three."""

import ast
import inspect
import re
import shlex
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

from tasks.params import ARMS
from tasks.params_files import Params, load
from tasks.params_verdict import GateParams
from tasks.stage import OUTPUTS

ROOT = Path(__file__).parents[2]
STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# flags whose place the environment names; DVC does not track them
STORES = ("store", "vectors", "answers", "checkpoints", "kept")


def names(entries: list[Any]) -> list[str]:
    """DVC writes a path, or {path: options}."""
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def flags(stage: str) -> dict[str, str]:
    words = shlex.split(STAGES[stage]["cmd"].replace("\\$", "$"))
    assert words[0] in ("python", "${TANDEM_LAUNCHER:-python}")  # the second, where more than one process may train
    assert words[1:3] == ["-m", f"tasks.{stage}"]
    assert len(words) % 2 == 1
    return {flag.removeprefix("--").replace("-", "_"): value for flag, value in zip(words[3::2], words[4::2], strict=True)}


def function(stage: str) -> Any:
    return getattr(import_module(f"tasks.{stage}"), stage)


def hints(stage: str) -> dict[str, Any]:
    return {name: kind for name, kind in get_type_hints(function(stage)).items() if name != "return"}


@cache
def imported(module: Path) -> frozenset[str]:
    """The first-party files that a module imports, directly or not, wherever in the file the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("tasks", "flows"):
            path = ROOT / f"{str(node.module).replace('.', '/')}.py"
            assert path.exists(), f"{module} imports {node.module}"
            found |= {path.relative_to(ROOT).as_posix(), *imported(path)}
        assert not (isinstance(node, ast.Import) and any(name.name.startswith("tasks") for name in node.names)), (
            "write: from tasks.x import y"
        )
    return frozenset(found)


def test_there_are_the_ten_stages_of_the_architecture() -> None:
    assert list(STAGES) == [
        "models", "documents", "chunks", "questions", "retriever", "index", "retrieval", "examples", "adapter", "evaluate",
    ]  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_every_flag_is_a_parameter_and_every_parameter_a_flag(stage: str) -> None:
    assert set(flags(stage)) == {name for name, kind in hints(stage).items() if not issubclass(kind, Params)}
    assert list(inspect.signature(function(stage)).return_annotation or [None]) == [None]


@pytest.mark.parametrize("stage", STAGES)
def test_every_path_that_a_stage_reads_is_a_dependency_and_every_path_it_writes_an_output(stage: str) -> None:
    given = {name: path for name, path in flags(stage).items() if name not in STORES}
    reads = {path for name, path in given.items() if name not in OUTPUTS}
    data = {path for path in names(STAGES[stage]["deps"]) if not path.startswith("tasks/")}
    assert data == reads
    written = {path for name, path in given.items() if name in OUTPUTS}
    assert set(names([entry for kind in ("outs", "metrics", "plots") for entry in STAGES[stage].get(kind, [])])) == written


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_first_party_module_that_it_imports(stage: str) -> None:
    code = {path for path in names(STAGES[stage]["deps"]) if path.startswith("tasks/")}
    module = f"tasks/{stage}.py"
    modules = {module, *imported(ROOT / module)} - {"tasks/__init__.py"}
    files = {f"tasks/{path}" for name in modules for path in re.findall(r'"(templates/[\w.]+)"', (ROOT / name).read_text())}
    assert code == modules | files


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_the_params_files_that_its_signature_reads(stage: str) -> None:
    wanted = {f"params/{kind.file}" for kind in hints(stage).values() if issubclass(kind, Params)}
    assert set(names(STAGES[stage]["params"])) == wanted


def test_every_params_file_is_read_by_a_class_and_loads_as_shipped() -> None:
    kinds = {kind.file: kind for kind in Params.__subclasses__()}
    files = sorted(path.name for path in (ROOT / "params").rglob("*.yaml"))
    assert len(files) >= 10
    assert files == sorted(kinds) and GateParams in kinds.values()
    for kind in kinds.values():
        load(kind, ROOT / "params")


def test_every_line_of_a_params_file_says_what_the_value_trades_off() -> None:
    paths = sorted((ROOT / "params").rglob("*.yaml"))
    assert paths
    for path in paths:
        for line in path.read_text().splitlines():
            commented = "#" in line or line.split(":")[0].strip() in (
                *ARMS,
                "seed",
                "id",
                "revision",
                "base",
                "embedder",
                "reranker",
            )
            assert commented, f"{path.name}: {line!r} has no comment with unit and trade-off"


def test_no_task_names_a_data_path() -> None:
    paths = sorted((ROOT / "tasks").rglob("*.py"))
    assert len(paths) > 20
    found = [f"{path.name}: {match}" for path in paths for match in re.findall(r"""["']data/[^"']*["']""", path.read_text())]
    assert found == []


def test_the_stores_in_dvc_yaml_default_to_where_the_settings_put_them() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    defaults = set(re.findall(r"\$\{(TANDEM_\w+):-([^}]+)\}", text))
    assert defaults == {
        ("TANDEM_INDEX_URI", ".tandem/index"),
        ("TANDEM_VECTORS", ".tandem/vectors.sqlite"),
        ("TANDEM_ANSWERS", ".tandem/answers.sqlite"),
        ("TANDEM_HOME", ".tandem"),
        ("TANDEM_CHECKPOINTS", ".tandem/checkpoints"),
        ("TANDEM_LAUNCHER", "python"),
    }


def test_no_dvc_project_lies_inside_this_one() -> None:
    """DVC ignores the files of one, or not, by the order in which it walks: what depends on them would be stale for ever."""
    inside = [path for folder in ("infra", "data/demo", "tests", "params") for path in (ROOT / folder).rglob(".dvc")]
    assert inside == []
    nested = {path.relative_to(ROOT).as_posix() for path in (ROOT / "infra").rglob("dvc.yaml")}
    ignored = (ROOT / ".dvcignore").read_text(encoding="utf-8").split()
    assert nested and all(f"/{path}" in ignored for path in nested)


@pytest.mark.parametrize(
    ("stage", "maker", "carriers"),
    [("documents", "reading", {"reading_on_ray", "cluster"}), ("chunks", "chunks", set())],
)
def test_pages_that_were_kept_are_made_again_after_any_change_to_the_code_that_makes_them(
    stage: str, maker: str, carriers: set[str]
) -> None:
    modules = {f"tasks/{module}.py" for module in import_module(f"tasks.{maker}").CODE}
    around = {f"tasks/{name}.py" for name in {"errors", "kept", "params", "params_files", "records", "stage"} | carriers}
    assert imported(ROOT / f"tasks/{stage}.py") | {f"tasks/{stage}.py"} == modules | around
