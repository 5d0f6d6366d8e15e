"""LanceDB and pyarrow in a third of the time: without the parts of their import that no table of ours asks for.

A process that opens a table lives for a second or two, and half of it was this.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

REST_CLIENT = "lance_namespace_urllib3_client"  # of Lance's catalogues, which LanceDB imports; no table of ours is in one


def import_lancedb() -> Any:
    """LanceDB. Most of its import is making the functions and the two hundred models of a REST client that is never called here,
    and looking through the bytecode of every class for methods that override another."""
    with built_when_used(), stand_in("overrides", unchecked_overrides()):
        if REST_CLIENT not in sys.modules:
            defer(REST_CLIENT)
        import lancedb
    return lancedb


def import_arrow_without_pandas() -> None:
    """pyarrow, for a process in which nobody hands it a DataFrame or asks it for one: only to know them it imports pandas.

    This process' pyarrow holds pandas for not installed from then on; whoever else imports it finds it.
    """
    if "pandas" not in sys.modules:
        with absent("pandas"):
            import pyarrow.dataset  # noqa: F401


@contextmanager
def built_when_used() -> Iterator[None]:
    """Models that are defined meanwhile get their validator when they are first used, not when their class is made."""
    from pydantic import BaseModel

    BaseModel.model_config["defer_build"] = True
    try:
        yield
    finally:
        BaseModel.model_config.pop("defer_build", None)


def unchecked_overrides() -> ModuleType:
    """What LanceDB uses of the package `overrides`, as it has it itself from Python 3.12 on."""
    module = ModuleType("overrides")
    vars(module).update(override=lambda method: method, EnforceOverrides=type("EnforceOverrides", (), {}))
    return module


@contextmanager
def stand_in(name: str, module: ModuleType) -> Iterator[None]:
    """`module` is what is imported under this name meanwhile, unless the real one is there already."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = module
    try:
        yield
    finally:
        del sys.modules[name]


@contextmanager
def absent(package: str) -> Iterator[None]:
    """Importing it fails meanwhile, as where it is not installed."""

    class Finder:
        def find_spec(self, name: str, *_: object) -> None:
            if name == package:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    finder = Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def defer(package: str) -> None:
    """Import a package without running its `__init__`, which runs when a name is first asked of it (PEP 562); its modules are
    imported from as ever. So whoever does use it finds it whole."""
    spec = find_spec(package)
    if spec is None or spec.loader is None:
        return
    module, run = module_from_spec(spec), spec.loader.exec_module

    def attribute(name: str) -> Any:
        del module.__dict__["__getattr__"]
        run(module)
        return getattr(module, name)

    module.__dict__["__getattr__"] = attribute
    sys.modules[package] = module
