"""What `tandem doctor` finds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """What is wrong, where, and the command that mends it. `minor`: nobody is served anything wrong by it, and nothing is lost
    if it stays; `tandem doctor` tells of it, and only `--strict` fails for it."""

    what: str
    where: str
    mend: str
    minor: bool = False
