"""From a release id to an assistant that answers: the manifest out of the store, every piece verified before it is opened."""

import logging

from flows import erasures, listing
from flows.ledger import Entry, find, live, read
from flows.retention import check_kept
from flows.settings import Settings
from flows.store import open_file, open_folder
from tasks.assistant import Assistant, Pieces
from tasks.errors import InputError, IntegrityError
from tasks.manifest import Release, load_release, release_id, short
from tasks.records import file_digest

NO_RELEASE = "there is no release yet; make one: tandem release"


def open_release(settings: Settings, name: str | None = None) -> tuple[Assistant, int]:
    """The live release, or the one that `name` names (number, id or start of it), and its number."""
    entries = read(settings.ledger)
    if name is not None:
        found = find(entries, name)
        check_kept(entries, found)
        return open_manifest(settings, manifest_text(settings, found.release)), found.number
    newest = live_entry(entries)
    return open_manifest(settings, manifest_text(settings, str(newest.release))), int(newest.number or 0)


def open_version(settings: Settings, text: str) -> Assistant:
    """What a version of the registry answers with: the release of its manifest. A promotion that was killed before the alias
    followed leaves the alias at the version before; whoever is led there gets what the ledger says is live."""
    from flows.registry import champion_version, registered_version

    identity, entries = release_id(load_release(text)), read(settings.ledger)
    newest = live(entries)
    if newest is None or newest.release == identity or not any(entry.release == identity for entry in entries):
        return open_manifest(settings, text)
    left_behind = champion_version(settings)
    if left_behind is None or left_behind != registered_version(settings, identity):
        return open_manifest(settings, text)
    logging.getLogger(__name__).warning(
        "the alias lags behind the ledger: release %s is live and answers. To move it: tandem doctor --mend", newest.number
    )
    return open_manifest(settings, manifest_text(settings, str(newest.release)))


def live_entry(entries: list[Entry]) -> Entry:
    newest = live(entries)
    if newest is None:
        raise InputError(NO_RELEASE)
    return newest


def manifest_text(settings: Settings, identity: str) -> str:
    """A manifest is stored under its own sha256, which is the release id."""
    return open_file(settings.store, identity).decode()


def open_manifest(settings: Settings, text: str) -> Assistant:
    """Raises IntegrityError where a piece is missing, torn or foreign, before anything of it is loaded."""
    release = load_release(text)
    pieces = open_pieces(settings, release)
    listing.check(settings, release.index.model_dump())
    return Assistant(release, release_id(release), pieces, erasures.watching(settings))


def open_pieces(settings: Settings, release: Release) -> Pieces:
    """Every byte of them is read. Raises IntegrityError."""
    base = open_folder(settings.store, release.base.digest)
    embedder = open_folder(settings.store, release.embedder.digest)
    adapter = open_folder(settings.store, release.adapter.digest) if release.adapter else None
    check_tokenizer(release, {name: file_digest(base / name) for name in release.tokenizer})
    tuned = open_folder(settings.store, release.query_encoder.digest) if release.query_encoder else None
    reranker = open_folder(settings.store, release.reranker.digest) if release.reranker else None
    return Pieces(base, embedder, adapter, settings.index_uri, tuned, reranker)


def check_tokenizer(release: Release, actual: dict[str, str]) -> None:
    """A changed tokenizer or chat template is another model with the same weights."""
    for name, digest in release.tokenizer.items():
        if actual[name] != digest:
            raise IntegrityError(
                f"{name} of the base model has digest {short(actual[name])}, release pins {short(digest)}; run: tandem doctor"
            )
