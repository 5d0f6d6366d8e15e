"""Which files a model may consist of. An allow-list: scanners of known-bad formats have been bypassed again and again."""

import json
import struct
from fnmatch import fnmatch
from pathlib import Path

from tasks.errors import InputError

ALLOWED = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.model", "README.md", "LICENSE*")
CODE_KEYS = ("auto_map", "_attn_implementation_internal")  # each made from_pretrained import code in some version
MAX_HEADER_BYTES = 100 * 2**20


def check_model_folder(folder: Path) -> None:
    """Raises InputError naming the first file that could run code, or is no safetensors though it says so."""
    files = [path for path in sorted(folder.rglob("*")) if not path.is_dir()]
    if not any(path.suffix == ".safetensors" for path in files):
        raise InputError(f"{folder} holds no .safetensors weights; convert them with save_pretrained()")
    for path in files:
        check_model_file(path)


def check_model_file(path: Path) -> None:
    if path.is_symlink() or not any(fnmatch(path.name, pattern) for pattern in ALLOWED):
        raise InputError(f"{path}: a model may hold only {', '.join(ALLOWED)}; remove or convert this file")
    if path.suffix == ".safetensors":
        check_safetensors(path)
    if path.name in ("config.json", "adapter_config.json", "tokenizer_config.json"):
        check_config(path)


def check_safetensors(path: Path) -> None:
    """The format's own header: 8 bytes little-endian length, then that many bytes of JSON (safetensors specification)."""
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, path.stat().st_size):
            raise InputError(f"{path} is not a safetensors file (its header is torn or foreign); fetch or save it again")
        try:
            json.loads(file.read(length))
        except ValueError as error:
            raise InputError(f"{path} is not a safetensors file (its header is no JSON); fetch or save it again") from error


def check_config(path: Path) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    found = [key for key in CODE_KEYS if key in config]
    if found:
        raise InputError(
            f"{path}: {found[0]} asks for code from outside transformers, which Tandem never runs; use another model"
        )
