"""Question/answer pairs from a person's file: JSON Lines, JSON or CSV, with their own column names; every fault with
its line.
"""

import csv
import difflib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasks.errors import InputError
from tasks.records import Record, text_digest
from tasks.texts import Unreadable, as_asked, comparable, decode

FIELDS = ("id", "question", "answer", "document", "fact", "kind", "tags")
REQUIRED = ("question", "answer", "document")
DELIMITERS = {".csv": ",;\t", ".tsv": "\t"}
SHOWN = 20  # faults listed before "and N more"


class Row(NamedTuple):
    """A record as it was found, or why there is none."""

    place: str  # `questions.jsonl:17`, or `questions.json: record 17`
    record: Record
    fault: str = ""


def placed_questions(path: Path, columns: Mapping[str, str]) -> list[tuple[str, Record]]:
    """The pairs of a .jsonl, .json, .csv or .tsv file as {"id", "question", "answer", "document" or None, "fact" or
    None, "kind" or None, "tags": texts}, each with the place where it stands (`pairs.csv:17`).

    `columns` maps our names to theirs ({"answer": "Antwort"}). A question that the corpus does not answer has no
    document, and needs no answer. Raises InputError with the first 20 faults.
    """
    rows = read_rows(path)
    if not rows:
        raise InputError(f"{path} has no questions; it needs at least one with the fields {', '.join(REQUIRED)}")
    check_columns(path, rows, columns)
    faults = open_drafts(rows)
    found: list[tuple[str, Record]] = []
    for row in [row for row in rows if not (row.record.get("draft") and row.record.get("status") == "rejected")]:
        record, wrong = canonical(row, columns)
        faults += [f"{row.place}: {fault}" for fault in wrong]
        found.append((row.place, record))
    if not faults:
        faults = repeated_ids(found)
    if faults:
        raise InputError(listing(f"{len(faults)} faults in {path}; nothing was taken over", faults))
    return with_ids(found)


def open_drafts(rows: Sequence[Row]) -> list[str]:
    """What a machine proposed is no question of this house until somebody says so."""
    wanted = 'read it, then set "status" to "accepted" or "rejected"'
    return [
        f"{row.place}: is a draft with status {row.record.get('status')!r}; {wanted}"
        for row in rows
        if row.record.get("draft") not in (None, False, "", "false", "False")
        and row.record.get("status") not in ("accepted", "rejected")
    ]


def listing(head: str, faults: Sequence[str]) -> str:
    more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    return "\n  ".join([head + ":", *faults[:SHOWN], *more])


def read_rows(path: Path) -> list[Row]:
    """Raises InputError where the file as a whole cannot be read; a broken line is a row with a fault."""
    readers = {".jsonl": json_lines, ".ndjson": json_lines, ".json": json_list, ".csv": table, ".tsv": table}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: questions are read from {' '.join(readers)}; convert the file or rename it")
    try:
        text = decode(path.read_bytes())
    except (OSError, Unreadable) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{error}; save it as UTF-8"
        raise InputError(f"{path}: {reason}") from error
    return list(readers[path.suffix.lower()](path, text))


def json_lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield row_of(f"{path.name}:{number}", line)


def row_of(place: str, line: str) -> Row:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Row(place, {}, f"not valid JSON ({error})")
    return as_row(place, value)


def as_row(place: str, value: object) -> Row:
    if isinstance(value, dict):
        return Row(place, value)
    return Row(place, {}, f"a JSON object was expected, not {type(value).__name__}")


def json_list(path: Path, text: str) -> Iterator[Row]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); one object a line is called .jsonl") from error
    if not isinstance(values, list):
        raise InputError(f"{path} must hold a list of questions: [{{...}}, ...]; or write one object a line into a .jsonl")
    for number, value in enumerate(values, start=1):
        yield as_row(f"{path.name}: record {number}", value)


def table(path: Path, text: str) -> Iterator[Row]:
    """CSV with a header; the delimiter is the one that the header holds most of. A row stands where its first line
    does.
    """
    header = text.lstrip().partition("\n")[0]
    delimiter = max(DELIMITERS[path.suffix.lower()], key=header.count)
    reader = csv.reader(io.StringIO(text.lstrip(), newline=""), delimiter=delimiter)
    try:
        names = [name.strip() for name in next(reader, [])]
        repeated = [name for name, times in Counter(names).items() if times > 1]
        if repeated:
            raise InputError(f"{path}: the header names column {repeated[0]!r} twice; rename one")
        start = reader.line_num + 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield table_row(f"{path.name}:{start}", names, cells)
            start = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not valid CSV ({error})") from error


def table_row(place: str, names: Sequence[str], cells: Sequence[str]) -> Row:
    if len(cells) != len(names):
        return Row(place, {}, f"{len(cells)} cells where the header has {len(names)}; a cell with a comma needs quotes")
    return Row(place, dict(zip(names, cells, strict=True)))


def check_columns(path: Path, rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    """Every mapped column must occur, and every required one; otherwise say how to map it, naming what was found."""
    found = sorted({str(name) for row in rows for name in row.record})
    if not found:
        return  # all lines are broken: those faults say more
    for ours, theirs in columns.items():
        if ours not in FIELDS:
            raise InputError(f"--column {ours}={theirs}: there is no field {ours!r}; fields: {', '.join(FIELDS)}")
    missing = [ours for ours in REQUIRED if columns.get(ours, ours) not in found]
    missing += [ours for ours in columns if ours not in REQUIRED and columns[ours] not in found]
    if missing:
        wanted = [(ours, columns.get(ours, ours), nearest(ours, found)) for ours in missing]
        hints = [f'no record has the field "{theirs}"; map it: --column {ours}={near}' for ours, theirs, near in wanted]
        raise InputError(listing(f"{path} has the columns {', '.join(found)}", hints))


def nearest(ours: str, found: Sequence[str]) -> str:
    folded = {name.casefold(): name for name in found}
    close = difflib.get_close_matches(ours, list(folded), n=1, cutoff=0.5)
    return folded[close[0]] if close else "NAME"


def canonical(row: Row, columns: Mapping[str, str]) -> tuple[Record, list[str]]:
    """(record with all of FIELDS, faults)"""
    if row.fault:
        return {}, [row.fault]
    names = {ours: columns.get(ours, ours) for ours in FIELDS}
    values = {ours: checked(ours, row.record.get(theirs)) for ours, theirs in names.items()}
    record: Record = {ours: value for ours, (value, _) in values.items()}
    record["question"] = as_asked(record["question"] or "")
    faults = {ours: fault for ours, (_, fault) in values.items() if fault}
    if names["document"] not in row.record:
        faults["document"] = "is missing; write null where the corpus does not answer the question"
    for ours in ("question", "answer") if record["document"] or faults.get("document") else ("question",):
        if not record[ours]:
            faults.setdefault(ours, "is empty" if names[ours] in row.record else "is missing")
    record["answer"] = record["answer"] or ""
    record["tags"] = record["tags"] or []
    return record, [f'field "{names[ours]}" {fault}' for ours, fault in faults.items()]


def checked(field: str, value: object) -> tuple[Any, str]:
    """(text without surrounding space or None, fault). A whole number is fine where it names something: as id or
    document. Tags are a list of texts, or one text with commas.
    """
    if field == "tags" and isinstance(value, list):
        texts = [checked("tag", each) for each in value]
        return [text for text, _ in texts if text], next((fault for _, fault in texts if fault), "")
    if field == "tags" and isinstance(value, str):
        return checked(field, value.split(","))
    if isinstance(value, int) and not isinstance(value, bool) and field in ("id", "document"):
        value = str(value)
    if value is None:
        return None, ""
    if not isinstance(value, str):
        return None, f"is {json.dumps(value)[:40]}, not a text; write it in quotes"
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        return None, "holds half of a character (a lone surrogate)"
    return value.strip() or None, ""


def repeated_ids(found: Sequence[tuple[str, Record]]) -> list[str]:
    first: dict[str, str] = {}
    faults = []
    for place, record in found:
        if record["id"] and first.setdefault(record["id"], place) != place:
            faults.append(f"{place}: id {record['id']!r} stands already at {first[record['id']]}")
    return faults


def with_ids(found: Sequence[tuple[str, Record]]) -> list[tuple[str, Record]]:
    """A question without an id gets one made of its words, so that it keeps it when others come and go."""
    taken = {record["id"] for _, record in found}
    for _, record in found:
        if not record["id"]:
            stem = "q-" + text_digest(comparable(record["question"]))[:16]
            names = (stem if number == 1 else f"{stem}-{number}" for number in range(1, len(found) + 2))
            record["id"] = next(name for name in names if name not in taken)
            taken.add(record["id"])
    return list(found)
