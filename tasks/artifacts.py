"""Which files a model may consist of. An allow-list: scanners of known-bad formats have been bypassed again and again."""

import json
import re
import stat
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tasks.backends import OPENVINO, QUANTISED
from tasks.errors import InputError

ALLOWED = ("*.safetensors", "*.json", "*.txt", "*.jinja", "*.model", "README.md", "LICENSE*")
FOLDERS = re.compile(r"[0-9]_[A-Za-z]{1,40}|additional_chat_templates")  # of sentence-transformers and of tokenizers
# Of those, what loads a model: many repositories also hold the same weights for other frameworks, or twice over
NEEDED = (
    "config.json", "generation_config.json", "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt",
    "merges.txt", "*.model", "chat_template.*", "modules.json", "config_sentence_transformers.json", "sentence_*_config.json",
    "README.md", "LICENSE*",
)  # fmt: skip
MADE = {QUANTISED: "onnx-int8"} | dict.fromkeys(OPENVINO, "openvino-int8")  # file -> the backend for which it is made here
FILES = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
# Each of these made from_pretrained fetch or run code, with trust_remote_code off, in some version of transformers
CODE_KEYS = ("auto_map", "_attn_implementation_internal", "_experts_implementation_internal")
KERNEL_KEYS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")


def entries(folder: Path) -> tuple[set[str], set[str]]:
    """Relative paths below `folder`: regular files, and what is neither file nor folder (a link, a device)."""
    modes = {path.relative_to(folder).as_posix(): path.lstat().st_mode for path in folder.rglob("*")}
    files = {name for name, mode in modes.items() if stat.S_ISREG(mode)}
    return files, {name for name, mode in modes.items() if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)}


def is_needed(name: str) -> bool:
    """Whether a file, by its path in a repository, is part of a model: at the top, or in a folder of one of its modules."""
    *folders, file = name.split("/")
    if not all(FOLDERS.fullmatch(folder) for folder in folders) or len(folders) > 1:
        return False
    return any(fnmatch(file, pattern) for pattern in (*NEEDED, *(("*.jinja",) if folders else ())))


def check_model_folder(source: Path) -> None:
    """Allowed files only, safetensors among them; neither links, devices, torn files nor a call for code. Raises InputError."""
    if not source.is_dir():
        raise InputError(f"{source} is not a folder with a model in it")
    files, foreign = entries(source)
    if foreign:
        raise InputError(f"{source / min(foreign)} is a link or a device; copy the file itself there (cp -L)")
    for name in sorted(files):
        check_name(source, name)
        if name.endswith(".json"):
            check_json(source / name)
        if name.endswith(".safetensors"):
            check_tensors(source / name)
    if not any(name.endswith(".safetensors") for name in files):
        raise InputError(f"{source} holds no .safetensors weights; convert them with save_pretrained()")


def check_name(source: Path, name: str) -> None:
    *folders, file = name.split("/")
    if name in MADE and made_here(source, MADE[name]):
        return
    if not any(fnmatch(file, pattern) for pattern in ALLOWED):
        raise InputError(f"{source / name}: a model may hold only {', '.join(ALLOWED)}; remove or convert this file")
    if len(folders) > 1 or not all(FOLDERS.fullmatch(folder) for folder in folders) or not FILES.fullmatch(file):
        raise InputError(f"{source / name}: such a name has no place in a model; remove the file")


def made_here(source: Path, backend: str) -> bool:
    """The one graph that a model may hold is made by the stage `models`, which never copies one, and says so beside it."""
    try:
        return bool(json.loads((source / "tandem.json").read_text(encoding="utf-8"))["backend"] == backend)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def check_json(path: Path) -> None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); fetch or save it again") from error
    if "config" in path.name or path.name == "modules.json":
        for key, found in settings(value):
            check_setting(path, key, found)


def settings(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth: a sub-model's configuration stands inside its parent's."""
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield from value.items()
        if isinstance(value, dict | list):
            pending.extend(value.values() if isinstance(value, dict) else value)


def check_setting(path: Path, key: str, value: Any) -> None:
    if key in CODE_KEYS or (key == "trust_remote_code" and value) or (key in KERNEL_KEYS and "/" in str(value)):
        raise InputError(f"{path}: {key} asks for code from elsewhere, which Tandem never runs; use another model")
    if path.name == "modules.json" and key == "type" and not str(value).startswith("sentence_transformers."):
        raise InputError(f"{path}: module {value} is code from outside sentence-transformers, which Tandem never runs")


def check_tensors(path: Path) -> None:
    """The safetensors library itself reads the header: offsets, types and the file's length have to agree."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            file.keys()
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}); fetch or save it again") from error
