"""Pages for the comparisons with other libraries: sentences of the demo handbook, drawn anew for each page.

A page is a title and sections of one paragraph each; a paragraph has about 45 words and a number of its own, so no two are
equal, and every library can be made to cut one passage from each section.
"""

import itertools
import random
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORDS = 45  # of a paragraph, about
PAGES_PER_FOLDER = 100


def sentences() -> list[str]:
    """Of the demo handbook: plain ones of 8 to 25 words."""
    found: list[str] = []
    for path in sorted((ROOT / "data/demo/handbook").rglob("*.md")):
        text = re.sub(r"^(#|\||-|\d+\.).*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        found += [each for each in re.split(r"(?<=\.)\s+", text) if re.fullmatch(r"[A-Z][\w ,']+\.", each)]
    kept = [each for each in dict.fromkeys(found) if 8 <= len(each.split()) <= 25]
    assert len(kept) > 200, "the demo handbook has no sentences"
    return kept


def paragraph(page: int, section: int, edit: int, drawn_from: list[str]) -> str:
    chosen = random.Random(f"{page}/{section}/{edit}")
    parts = [f"Record {page}-{section}-{edit} of the register."]
    while sum(len(part.split()) for part in parts) < WORDS:
        parts.append(chosen.choice(drawn_from))
    return " ".join(parts)


def page_text(page: int, sections: int, drawn_from: list[str], edits: dict[int, int] | None = None) -> str:
    """`edits`: section -> the number of its edit; the others are as they were first."""
    blocks = [f"# Page {page}"]
    for section in range(sections):
        blocks += [f"## Section {section}", paragraph(page, section, (edits or {}).get(section, 0), drawn_from)]
    return "\n\n".join(blocks) + "\n"


def page_path(page: int) -> str:
    return f"part-{page // PAGES_PER_FOLDER:03}/page-{page:05}.md"


def write_pages(folder: Path, pages: int, sections: int) -> None:
    drawn_from = sentences()
    for page in range(pages):
        path = folder / page_path(page)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page_text(page, sections, drawn_from), encoding="utf-8")


def edit_page(folder: Path, page: int, sections: int, edits: dict[int, int]) -> None:
    (folder / page_path(page)).write_text(page_text(page, sections, sentences(), edits), encoding="utf-8")


def files(folder: Path) -> list[Path]:
    return sorted(itertools.chain(folder.rglob("*.md")))
