"""What no line of tasks/ and flows/ may do, looked for in the source."""

import ast
from functools import cache

import tiny

FILES = [path for folder in ("tasks", "flows") for path in sorted((tiny.ROOT / folder).rglob("*.py"))]
FILTERED = ("where", "delete", "update", "when_not_matched_by_source_delete")  # of LanceDB: SQL where a text is given
RUNS_CODE = ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "joblib.load", "marshal.loads")


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    assert len(FILES) > 150
    trees = {path.relative_to(tiny.ROOT).as_posix(): ast.parse(path.read_text()) for path in FILES}
    return [(path, node) for path, tree in trees.items() for node in ast.walk(tree)]


def called(node: ast.AST) -> str:
    """`torch.load` of `torch.load(...)`; empty for what is no call."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def imported(node: ast.AST) -> set[str]:
    """The packages that a statement imports from."""
    names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
    names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
    return {name.split(".")[0] for name in names}


def is_made_of_texts(node: ast.AST) -> bool:
    """An f-string, a text with something added or put in, "...".format(...)."""
    if isinstance(node, ast.BinOp):
        return any(is_made_of_texts(side) or (isinstance(side, ast.Constant) and isinstance(side.value, str))
                   for side in (node.left, node.right))  # fmt: skip
    return isinstance(node, ast.JoinedStr) or called(node).endswith(".format")


def test_no_filter_of_the_index_is_made_of_texts() -> None:
    """F26: a quote in an id would be SQL. (Digests are updated with texts; they are given bytes, or `.encode()` of one.)"""
    calls = [(path, node) for path, node in nodes() if called(node).split(".")[-1] in FILTERED and getattr(node, "args", None)]
    assert len(calls) >= 10
    assert [(path, ast.unparse(node)) for path, node in calls if is_made_of_texts(node.args[0])] == []  # type: ignore[attr-defined]
    assert is_made_of_texts(ast.parse("f\"id = '{x}'\"", mode="eval").body)
    assert is_made_of_texts(ast.parse("\"id = '%s'\" % x", mode="eval").body)


def test_nothing_of_an_artifact_an_answer_or_a_page_is_run() -> None:
    """Section 7: no pickle, no eval, no shell, no remote code."""
    assert [(path, node.lineno) for path, node in nodes() if imported(node) & {"pickle", "dill", "cloudpickle", "shelve"}] == []  # type: ignore[attr-defined]
    assert [(path, called(node)) for path, node in nodes() if called(node) in RUNS_CODE] == []
    options = [(path, node.arg, node.value) for path, node in nodes() if isinstance(node, ast.keyword)]
    assert [(path, name) for path, name, value in options if name in ("shell", "trust_remote_code") and not is_false(value)] == []
    loaders = {ast.unparse([*node.args, *(each.value for each in node.keywords)][1])
               for _, node in nodes() if isinstance(node, ast.Call) and called(node) == "yaml.load"}  # fmt: skip
    assert loaders == {"UniqueKeyLoader", "PlainLoader", "SAFE_LOADER", "pipeline.SAFE_LOADER"}


def is_false(value: ast.AST) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


def test_nobody_forks_but_the_guard_which_has_loaded_nothing() -> None:
    """F50: Lance does not survive a fork."""
    forks = {path for path, node in nodes() if "multiprocessing" in imported(node) or called(node) == "os.fork"}
    assert forks == {"flows/guard.py"}
    guard = ast.parse((tiny.ROOT / "flows/guard.py").read_text())
    assert {name for node in ast.walk(guard) for name in imported(node)} <= {
        "os",
        "signal",
        "collections",
        "contextlib",
        "pathlib",
        "psutil",
    }


def test_what_prefect_shows_decides_nothing() -> None:
    """F30, F31. Runs are tagged, dead ones marked, a server is looked for, and a machine that trains is waited for, which proves
    what it did by what it pushed. No place of a concurrency limit is taken."""
    asks = {
        path
        for path, node in nodes()
        if isinstance(node, ast.alias) and node.name in ("get_client", "run_deployment", "concurrency")
    }
    assert asks == {"flows/crashed.py", "flows/handover.py", "flows/run_names.py", "flows/servers.py"}
