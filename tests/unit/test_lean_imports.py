"""What a process that opens a table imports, and that whoever wants the rest of it still gets it."""

import subprocess
import sys

import tiny

CLIENT = "lance_namespace_urllib3_client"


def said(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], env=tiny.outside_environment(), cwd=tiny.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_lancedb_is_imported_without_the_functions_of_its_rest_client_and_who_asks_for_one_gets_it() -> None:
    code = f"""
import sys
from tasks.lean_imports import import_lancedb
lancedb = import_lancedb()
print(callable(lancedb.connect), any(name.startswith("{CLIENT}.api") for name in sys.modules))
import {CLIENT} as client
from {CLIENT} import TableApi
print(TableApi.__module__, client.TagApi.__name__, client.__version__ != "", hasattr(client, "no_such_name"))
"""
    assert said(code) == ["True", "False", f"{CLIENT}.api.table_api", "TagApi", "True", "False"]


def test_where_the_rest_client_is_there_already_it_stays_as_it_is() -> None:
    code = (
        f"import {CLIENT} as first; from tasks.lean_imports import import_lancedb; import_lancedb(); import {CLIENT} as second\n"
    )
    assert said(code + "print(first is second, '__getattr__' in vars(second))") == ["True", "False"]


def test_a_model_of_the_rest_client_is_built_when_it_is_first_used_and_those_of_others_at_once_as_ever() -> None:
    code = """
from tasks.lean_imports import import_lancedb
lancedb = import_lancedb()
from lance_namespace import ListTablesResponse
from pydantic import BaseModel
class Later(BaseModel):
    count: int
print(ListTablesResponse.__pydantic_complete__, Later.__pydantic_complete__)
print(ListTablesResponse(tables=["a"]).tables[0], ListTablesResponse.__pydantic_complete__)
print("defer_build" in BaseModel.model_config)
"""
    assert said(code) == ["False", "True", "a", "True", "False"]


def test_lancedb_does_without_the_checks_of_overrides_and_who_imports_them_gets_them() -> None:
    code = """
import sys
from tasks.lean_imports import import_lancedb
lancedb = import_lancedb()
print("overrides" in sys.modules)
import overrides
print(overrides.__file__ is not None, issubclass(lancedb.db.LanceDBConnection, overrides.EnforceOverrides))
"""
    assert said(code) == ["False", "True", "False"]
    assert said(code.replace("import sys", "import sys, overrides", 1))[:2] == ["True", "True"]


def test_arrow_does_without_pandas_and_who_imports_it_gets_it() -> None:
    code = """
import sys
from tasks.lean_imports import import_arrow_without_pandas, import_lancedb
import_arrow_without_pandas()
import_lancedb()
import pyarrow as pa
print(pa.table({"a": ["b"]}).to_pylist()[0]["a"], "pandas" in sys.modules)
import pandas
print(pandas.DataFrame({"a": [1]}).shape[0])
"""
    assert said(code) == ["b", "False", "1"]
    first = code.replace("import sys", "import sys, pandas", 1) + "print(len(pa.table({'a': [1, 2]}).to_pandas()))\n"
    assert said(first) == ["b", "True", "1", "2"]  # where it is there already, arrow knows it
