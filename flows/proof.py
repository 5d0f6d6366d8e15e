"""`tandem erase --verify`: every store that Tandem owns, searched for text that must not be there. Changes nothing.

What was searched is told by place, with files and bytes; and so is what cannot be searched, or not be proven at all.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flows import copies, pending
from flows.pipeline import repository
from flows.settings import Settings, shown
from tasks.canary import Canary, canary, in_file
from tasks.errors import InputError
from tasks.records import Record
from tasks.tables import connect, is_local, open_table, table_names

UNPROVABLE = (
    "weights: no search reads what an adapter learnt. Proven is only that none of those that say they learnt from the pages is "
    "kept in a release, in the store or in DVC's cache; the base model came from elsewhere",
    "backups, snapshots and copies that somebody made outside these stores",
    "blocks of a disk that were freed and not overwritten yet",
    "text inside PDF and docx files other than those of the pages themselves, and text in other words",
)


def verify(settings: Settings, texts: Sequence[str]) -> Record:
    """`texts`: what a person looks for, beside what erasures that are not finished wait for. Raises InputError for neither."""
    left = pending.standing(settings)
    if not texts and not left:
        raise InputError(
            "nothing is pending, so nothing here knows any more what to look for; name a text that stood on the page: "
            'tandem erase --verify --canary "..."'
        )
    given, waiting, lines = canary(texts).forms, pending.wanted(settings, left).forms, pending.lines_of(left).forms
    pages = [page for each in left for page in each.documents]
    return search(settings, Canary({**given, **waiting}), Canary({**given, **lines}), pages)


def search(settings: Settings, wanted: Canary, lines: Canary, pages: Sequence[str]) -> Record:
    """{"hits": [{"where", "what"}], "searched": {place: [files, bytes]}, "unsearched", "unprovable", "says"}"""
    hits: list[Record] = []
    searched: dict[str, list[int]] = {}
    for name, found in stores(settings, wanted, lines, pages):
        count = searched.setdefault(name, [0, 0])
        for where, size, hit in found:
            count[0], count[1] = count[0] + 1, count[1] + size
            hits += [{"where": name, "what": where}] if hit else []
    unsearched = list(elsewhere(settings))
    return {
        "hits": hits,
        "searched": searched,
        "unsearched": unsearched,
        "unprovable": list(UNPROVABLE),
        "says": told(hits, searched, unsearched),
    }


Looked = Iterator[tuple[str, int, bool]]  # what was looked at, its bytes, whether it holds the text


def stores(settings: Settings, wanted: Canary, lines: Canary, pages: Sequence[str]) -> Iterator[tuple[str, Looked]]:
    yield "ledger", files(copies.files_below(settings.ledger), settings, wanted)
    yield "store", files(copies.files_below(settings.store), settings, wanted)
    yield "index", index(settings, lines, pages)
    yield "vectors", files(copies.files_below(settings.vectors), settings, wanted)
    yield "home", files(copies.own_files(settings), settings, wanted)
    yield "outside home", files(copies.outside_files(settings), settings, wanted)
    yield "data", files((file for path in workspace(settings) for file in copies.files_below(path)), settings, wanted)
    with repository(settings.root) as repo:
        for place in copies.places(repo):
            yield place.name, objects(settings, place, wanted)
    yield "MLflow artifacts", artifacts(settings, wanted)


def workspace(settings: Settings) -> list[Path]:
    data = settings.root / "data"
    return [*copies.outputs(data), data / "raw", settings.root / "dvc.lock"]


def files(paths: Any, settings: Settings, wanted: Canary) -> Looked:
    for path in paths:
        if copies.is_vocabulary(path):
            continue
        yield relative(settings, path), path.stat().st_size if path.exists() else 0, in_file(path, wanted)


def relative(settings: Settings, path: Path) -> str:
    return path.relative_to(settings.root).as_posix() if path.is_relative_to(settings.root) else str(path)


def index(settings: Settings, wanted: Canary, pages: Sequence[str]) -> Looked:
    """The rows of every version, by Lance itself; then the bytes of every file, those that no version names among them."""
    from tasks.rewriting import orphans

    database = connect(settings.index_uri)
    for name in table_names(database):
        newest: Any = open_table(database, name)
        for version in newest.list_versions():
            table: Any = open_table(database, name)
            table.checkout(version["version"])
            yield f"{name}, version {version['version']}", 0, rows_hold(table, wanted, pages)
    if is_local(settings.index_uri):
        stranded = set(orphans(settings.index_uri))
        for path in copies.files_below(Path(settings.index_uri)):
            yield relative(settings, path), path.stat().st_size, path in stranded or in_file(path, wanted)


def rows_hold(table: Any, wanted: Canary, pages: Sequence[str]) -> bool:
    columns = ["document", "heading", "text", "embedded"]
    for batch in table.search().select(columns).limit(table.count_rows() or 1).to_batches(10_000):
        rows = batch.to_pylist()
        if any(row["document"] in pages or any(wanted.within(row[column].encode()) for column in columns) for row in rows):
            return True
    return False


def objects(settings: Settings, place: copies.Objects, wanted: Canary) -> Looked:
    spared = copies.models_in(settings, place)
    for path in [*place.files("files/md5"), *place.files("runs")]:
        if place.oid(path) not in spared:
            yield path, int(place.fs.size(path) or 0), place.holds(path, wanted)


def artifacts(settings: Settings, wanted: Canary) -> Looked:
    for found, path in copies.remote_artifacts(settings):
        local = Path(found.download_artifacts(path))
        yield f"{found.artifact_uri}/{path}", local.stat().st_size, in_file(local, wanted)


def elsewhere(settings: Settings) -> Iterator[str]:
    if not settings.tracking_uri.startswith("sqlite:"):
        yield f"the database behind {shown(settings.tracking_uri)}: search it where it runs"
    if not is_local(settings.index_uri):
        yield f"files below {settings.index_uri} that no version names: LanceDB lists none on object storage"
    if not any(path.name == "prefect.db" for path in [*copies.own_files(settings), *copies.outside_files(settings)]):
        yield "the database of the Prefect server, which is not on this machine"


def told(hits: list[Record], searched: dict[str, list[int]], unsearched: list[str]) -> str:
    total = [sum(each[at] for each in searched.values()) for at in (0, 1)]
    head = f"{len(hits)} hits in {total[0]} files and versions, {total[1] / 1e6:.1f} MB"
    lines = [f"  {name}: {count} files, {size / 1e6:.1f} MB" for name, (count, size) in searched.items()]
    found = [f"  HIT {hit['where']}: {hit['what']}" for hit in hits]
    return "\n".join([head, *found, *lines, *(f"  not searched: {each}" for each in unsearched),
                      *(f"  cannot be proven: {each}" for each in UNPROVABLE)])  # fmt: skip
