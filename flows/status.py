"""What is live."""

from typing import Any

from flows import ledger
from flows.opening import manifest_text
from flows.settings import Settings
from flows.succession import moves
from tasks.manifest import load_release


def status(settings: Settings) -> dict[str, Any]:
    """The release that answers, and since when; None where none does yet."""
    entries = ledger.read(settings.ledger)
    live = ledger.live(entries)
    if live is None:
        return {"live": None, "entries": len(entries)}
    pinned = load_release(manifest_text(settings, str(live.release)))
    live = moves(entries)[-1]
    return {
        "live": {
            "number": live.number,
            "release": live.release,
            "version": live.version,
            "arm": pinned.arm,
            "documents": pinned.corpus.documents,
            "passages": pinned.index.rows,
            "since": live.at,
            "by": live.who,
            "action": live.action,
            "why": live.why,
        },
        "entries": len(entries),
    }
