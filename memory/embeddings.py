"""Turns texts into vectors, offline; the memory room, the tool picker and the offline planner may call it.

The default is wordllama: static token vectors, averaged. Weights and tokenizer lie inside its wheel, so nothing is
downloaded. Loading takes about 0.8 s and 60 MB, once per process, at the first call that has a text to embed.
Beside these dense vectors stand sparse ones of words, weighted by BM25 (Robertson and Zaragoza 2009): they find the
names and numbers that an average of token vectors blurs.
"""

from __future__ import annotations

import logging
import re
import threading
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from holdfast.errors import ConfigurationError

if TYPE_CHECKING:
    from qdrant_edge import Bm25

__all__ = [
    "DIMENSIONS",
    "MAX_CHARS",
    "Embedder",
    "Sparse",
    "Vectors",
    "WordLlamaEmbedder",
    "embed_texts",
    "sparse_document",
    "sparse_query",
    "valid_unicode",
]

DIMENSIONS = 256
MAX_CHARS = 262_144
"""Only so many characters of a text are embedded (0.4 s); an average over more says nothing new."""

_TOKENS_AT_ONCE = 4096  # 4 MB of token vectors: the memory a text takes does not grow with its length

_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")  # kana and ideographs

Vectors = NDArray[np.float32]


def valid_unicode(text: str) -> str:
    """Return *text* with a question mark for each half of a surrogate pair, which no store or tokenizer takes."""
    return text.encode("utf-8", "replace").decode()


class Embedder(Protocol):
    """What the long-term memory needs of an embedding model. Implementations may be called from any thread."""

    @property
    def dimensions(self) -> int:
        """Return the length of every vector."""
        ...

    def embed(self, texts: list[str]) -> Vectors:
        """Return one row per text, shape (len(texts), dimensions): length 1, or all zero for a text without tokens.

        May raise `MemoryRefused` for texts that it will never take, or the error of an HTTP client that bears a status
        of 400, 413 or 422. Whatever else it raises is taken for an outage.
        """
        ...


class WordLlamaEmbedder:
    """wordllama's 256-dimensional static embeddings. Thread-safe; loads itself at the first text."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: tuple[Any, Vectors] | None = None  # (tokenizer, token vectors); wordllama has no types

    @property
    def dimensions(self) -> int:
        """Return 256."""
        return DIMENSIONS

    def embed(self, texts: list[str]) -> Vectors:
        """Return one row per text; see `Embedder.embed`.

        Raises:
            ConfigurationError: wordllama, its weights or its tokenizer are not installed whole.

        """
        vectors = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        cleaned = [valid_unicode(text[:MAX_CHARS].strip()) for text in texts]
        filled = [row for row, text in enumerate(cleaned) if text]
        if not filled:
            return vectors
        tokenizer, table = self._model()
        encodings = tokenizer.encode_batch([cleaned[row] for row in filled], add_special_tokens=False)
        for row, encoding in zip(filled, encodings, strict=True):
            ids = np.asarray(encoding.ids, dtype=np.int64)
            ids = ids[ids < len(table)]
            for start in range(0, len(ids), _TOKENS_AT_ONCE):
                vectors[row] += table[ids[start : start + _TOKENS_AT_ONCE]].sum(axis=0, dtype=np.float32)
        # The sum and the average point the same way, so normalising makes dividing by the count needless.
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.divide(vectors, lengths, out=vectors, where=lengths > 0)
        return vectors

    def _model(self) -> tuple[Any, Vectors]:
        with self._lock:
            if self._loaded is None:
                self._loaded = _load()
            return self._loaded


def _load() -> tuple[Any, Vectors]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        import wordllama  # type: ignore[import-untyped]  # it ships no types
    except ImportError as exc:
        raise ConfigurationError(
            f"The embedding model could not be imported ({exc}). Install it again: pip install wordllama==0.4.0.post1"
        ) from exc
    finally:  # importing wordllama configures the root logger, which belongs to the program
        for handler in [h for h in root.handlers if h not in handlers]:
            root.removeHandler(handler)
        root.setLevel(level)
    # It looks for the weights in its own package but for the tokenizer in `<cache_dir>/tokenizers`, which is where its
    # wheel has it if the cache is the package itself. Nothing is written there.
    package = Path(wordllama.__file__).parent
    try:
        model = wordllama.WordLlama.load(dim=DIMENSIONS, cache_dir=package, disable_download=True)
    except FileNotFoundError as exc:
        raise ConfigurationError(
            f"The embedding model in {package} is not whole ({exc}). "
            "Install it again: pip install --force-reinstall wordllama==0.4.0.post1"
        ) from exc
    tokenizer = model.tokenizer
    tokenizer.no_padding()  # padding would blow every text of a batch up to the longest one
    return tokenizer, model.embedding


_DEFAULT = WordLlamaEmbedder()


def embed_texts(texts: list[str]) -> Vectors:
    """Return the texts' vectors by the default model: float32, shape (len(texts), 256), each of length 1 or all zero.

    Raises:
        ConfigurationError: the model is not installed whole.

    """
    return _DEFAULT.embed(texts)


class Sparse(NamedTuple):
    """A sparse vector: word hashes, and the weight of each. Both empty for a text without words."""

    indices: list[int]
    values: list[float]


@lru_cache(maxsize=1)
def _bm25() -> Bm25:
    from qdrant_edge import Bm25, Bm25Config, TokenizerType  # 20 MB: only a process that stores or searches needs it

    # The engine's multilingual tokenizer drops numbers, so order 17 could not be told from order 71.
    return Bm25(Bm25Config(tokenizer=TokenizerType.Word, ascii_folding=True))


def _words(text: str) -> str:
    """Return *text* with spaces between the characters of Chinese and Japanese, which are written without any."""
    return _UNSPACED.sub(r" \g<0> ", valid_unicode(text[:MAX_CHARS]))


def sparse_document(text: str) -> Sparse:
    """Return the BM25 weights of a text to store; the engine multiplies them by the inverse document frequency."""
    vector = _bm25().embed_document(_words(text))
    return Sparse(vector.indices, vector.values)


def sparse_query(text: str) -> Sparse:
    """Return the words of a text to search for, each of weight 1."""
    vector = _bm25().embed_query(_words(text))
    return Sparse(vector.indices, vector.values)
