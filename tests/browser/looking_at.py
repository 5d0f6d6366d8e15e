"""A page as a person sees it: its text and its picture, by headless Chromium."""

import html
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--window-size=1600,1300", "--virtual-time-budget=20000",
)  # fmt: skip


@dataclass(frozen=True)
class Page:
    text: str
    source: str


def look(address: str, picture: Path, profile: Path) -> Page:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium here")
    command = [chromium, *FLAGS, f"--user-data-dir={profile}"]
    run(*command, f"--screenshot={picture}", address)
    assert picture.stat().st_size > 20_000, "an empty page"
    source = run(*command, "--dump-dom", address)
    return Page(visible(source), source)


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout


def visible(source: str) -> str:
    """The text of a page, blanks and tags made one blank each."""
    without_code = re.sub(r"<(script|style)\b.*?</\1>", " ", source, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", without_code)))
