"""docs/faults.md names every row once, and tests that exist."""

import re

import tiny

TEXT = (tiny.ROOT / "docs/faults.md").read_text()
CITED = re.compile(r"((?:\w+/)?)(test_\w+)(?: \(([a-z0-9_, ]{3,})[^)]*\))?")


def named_in(folder: str, name: str) -> list[str]:
    path = tiny.ROOT / "tests" / (folder or "unit/") / f"{name}.py"
    return re.findall(r"^def test_(\w+)", path.read_text(), re.MULTILINE)


def test_every_row_stands_there_once_and_is_shown_or_says_that_it_is_not() -> None:
    rows = [line.split(" | ") for line in TEXT.splitlines() if re.match(r"\| F\d\d", line)]
    assert [row[0].removeprefix("| ") for row in rows] == [f"F{number:02}" for number in range(1, 55)]
    for row in rows:
        assert "test_" in row[2] or row[2].lower().startswith("not"), row


def test_every_test_that_is_cited_exists() -> None:
    cited = CITED.findall(TEXT.partition("|---|")[2])
    assert len(cited) > 100
    for folder, name, parts in cited:
        tests = named_in(folder, name)
        for part in filter(None, parts.split(", ")):
            assert any(part.strip() in test for test in tests), f"{folder}{name} has no test {part}"
