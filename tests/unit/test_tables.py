"""What a process that opens a table imports."""

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
from tasks.tables import import_lancedb
lancedb = import_lancedb()
print(callable(lancedb.connect), any(name.startswith("{CLIENT}.api") for name in sys.modules))
import {CLIENT} as client
from {CLIENT} import TableApi
print(TableApi.__module__, client.TagApi.__name__, client.__version__ != "", hasattr(client, "no_such_name"))
"""
    assert said(code) == ["True", "False", f"{CLIENT}.api.table_api", "TagApi", "True", "False"]


def test_where_the_rest_client_is_there_already_it_stays_as_it_is() -> None:
    code = f"import {CLIENT} as first; from tasks.tables import import_lancedb; import_lancedb(); import {CLIENT} as second\n"
    assert said(code + "print(first is second, '__getattr__' in vars(second))") == ["True", "False"]
