"""Rules of a person's own, by name in params/evaluate.yaml: a regular expression, a JSON schema, or a function in the project."""

import importlib.util
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.errors import InputError
from tasks.metrics import Answered, Metric
from tasks.params_verdict import Rule
from tasks.scores import without_citations


def own_rules(rules: Mapping[str, Rule], root: Path) -> dict[str, Metric]:
    """`rule NAME` -> metric. `root`: the project, below which functions are found. Raises InputError for one that is unusable."""
    return {f"rule {name}": metric(name, rule, root) for name, rule in rules.items()}


def metric(name: str, rule: Rule, root: Path) -> Metric:
    if rule.pattern is not None:
        return matching(rule.pattern)
    if rule.json_schema is not None:
        return conforming(rule.json_schema)
    return calling(f"params/evaluate.yaml: rules.{name}.function", str(rule.function), root)


def matching(pattern: str) -> Metric:
    compiled = re.compile(pattern)
    return lambda answered: float(bool(compiled.search(answered.answer.strip())))


def conforming(schema: Mapping[str, Any]) -> Metric:
    """1 where the answer, less its citations, is JSON that the schema accepts."""
    from jsonschema.validators import validator_for

    validator = validator_for(schema)(schema)

    def conforms(answered: Answered) -> float:
        try:
            return float(validator.is_valid(json.loads(without_citations(answered.answer))))
        except ValueError:
            return 0.0

    return conforms


def calling(where: str, dotted: str, root: Path) -> Metric:
    """The function `checks.polite.greets` is `greets` of checks/polite.py; it gets question, answer, reference and passages."""
    *folders, module, name = dotted.split(".")
    path = root.joinpath(*folders, f"{module}.py")
    if not path.is_file():
        raise InputError(f"{where}: {dotted}: there is no file {path.relative_to(root)} in the project")
    function = getattr(executed(where, path), name, None)
    if not callable(function):
        raise InputError(f"{where}: {path.relative_to(root)} has no function {name}")
    return lambda answered: function(answered.question, answered.answer, answered.reference, list(answered.passages))


def executed(where: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"rule_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{where}: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{where}: {path.name} cannot be loaded: {error!r}") from error
    return module
