"""How a file in params/ is read and checked: strictly, with a message that names file, key, fault and the nearest key."""

import difflib
import re
from pathlib import Path
from string import Formatter
from typing import Annotated, Any, ClassVar, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tasks.errors import InputError

FOLDER = Path("params")


class Group(BaseModel):
    """Strict (no "3" for 3), frozen, no unknown keys."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class Params(Group):
    """The whole of one file in params/."""

    file: ClassVar[str]


P = TypeVar("P", bound=Params)


def load(kind: type[P], folder: Path = FOLDER) -> P:
    """Read and check one params file. Raises InputError naming file, key, fault and, for a typo, the nearest key."""
    path = folder / kind.file
    try:
        return kind.model_validate(read_yaml(path))
    except ValidationError as error:
        raise InputError("\n".join(describe(path, kind, detail) for detail in error.errors())) from error


def read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=UniqueKeyLoader)
    except FileNotFoundError as error:
        raise InputError(f"{path.resolve()} is missing; restore it: git checkout {path}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {error}") from error


class PlainLoader(yaml.SafeLoader):
    """Without aliases, of which ten lines can stand for a billion values; neither a params file nor a page needs one."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"write out what *{event.anchor} stands for", event.start_mark)
        return super().compose_node(parent, index)


class UniqueKeyLoader(PlainLoader):
    """YAML itself keeps the last of two equal keys silently; a params file must not."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def describe(path: Path, kind: type[BaseModel], detail: Any) -> str:
    """One line for one fault: `params/adapter.yaml: rnak: unknown key; did you mean rank?`"""
    where = [str(part) for part in detail["loc"]]
    key = ".".join(where) or "(the whole file)"
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(where[-1], known_keys(kind, where[:-1]), n=1, cutoff=0.5)
        return f"{path}: {key}: unknown key" + (f"; did you mean {near[0]}?" if near else "; remove it")
    if detail["type"] == "missing":
        return f"{path}: {key}: missing; params files are complete, there is no default"
    if detail["type"] == "value_error":  # a rule of ours about several keys, which its sentence names
        return f"{path}: {key}: {detail['msg'].removeprefix('Value error, ')}"
    return f"{path}: {key}: {detail['msg']} (found {detail.get('input')!r})"


def known_keys(kind: type[BaseModel], where: list[str]) -> list[str]:
    fields = kind.model_fields
    for part in where:
        inner = fields[part].annotation if part in fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        fields = inner.model_fields
    return list(fields)


def check_value(kind: type[BaseModel], key: str, value: Any) -> None:
    """Raises ValueError where `value` is none for that key."""
    field = kind.model_fields[key]
    expected: Any = Annotated[field.annotation, *field.metadata]
    try:
        TypeAdapter(expected).validate_python(value, strict=True)
    except ValidationError as error:
        raise ValueError(f"{key}: {value!r}: {error.errors()[0]['msg']}") from error


def check_template(name: str, template: str, needed: set[str], allowed: set[str]) -> None:
    """A misspelt placeholder would stop a stage minutes later. A brace of the text itself is written twice."""
    found = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
    if not needed <= found <= allowed:
        wanted = ", ".join(f"{{{field}}}" for field in sorted(needed))
        raise ValueError(f"`{name}` needs {wanted} and knows only {sorted(allowed)}; it has {sorted(found)}")


def compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
    return pattern


def globs(pattern: str) -> str:
    """As in .gitignore, where an empty line or one with # says nothing: here somebody means something by it."""
    from pathspec import GitIgnoreSpec

    try:
        spec = GitIgnoreSpec.from_lines([pattern])
    except ValueError as error:
        raise ValueError(f"{pattern!r} is no pattern of .gitignore: {error}") from error
    if not any(each.include is not None for each in spec.patterns):
        raise ValueError(f"{pattern!r} matches nothing; write a page, a folder/ or a glob as in .gitignore")
    return pattern


Pattern = Annotated[str, AfterValidator(compiles)]
Glob = Annotated[str, AfterValidator(globs)]


def is_schema(schema: dict[str, Any]) -> dict[str, Any]:
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import validator_for

    try:
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"no JSON schema: {error.message}") from error
    return schema


Schema = Annotated[dict[str, Any], AfterValidator(is_schema)]
Dotted = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")]  # folder.module.name
