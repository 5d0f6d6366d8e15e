"""What the ledger rests on, in the store: the sealed file, or what stands for it since an erasure took something out of it.

root/erased/<sha256>     names the file that stands for the one with this digest, which is gone
"""

from pathlib import Path

from flows.store import checked, open_file, seal_file
from tasks.failpoints import failpoint
from tasks.records import sync, write_text


def open_evidence(root: Path, digest: str) -> bytes:
    """What a ledger entry names as evidence; where an erasure took something out of it, what is left. Raises IntegrityError."""
    return open_file(root, replacement(root, digest))


def replacement(root: Path, digest: str) -> str:
    """The digest of what stands for a file from which something was erased, over as many erasures as there were; else its own."""
    pointer = root / "erased" / checked(digest)
    while pointer.exists():
        digest = checked(pointer.read_text(encoding="ascii"))
        pointer = root / "erased" / digest
    return digest


def replace_file(root: Path, digest: str, content: bytes) -> str:
    """Seal `content` in the place of a file, which then goes. The pointer comes first: a crash leaves one of the two readable."""
    new = seal_file(root, content)
    if new != digest:
        write_text(root / "erased" / checked(digest), new)
        failpoint("evidence.before-unlink")
        (root / "files" / digest).unlink(missing_ok=True)
        sync(root / "files")
    return new
