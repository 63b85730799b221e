"""The offline embeddings: shape, meaning, odd texts, threads."""

from __future__ import annotations

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from holdfast.memory.embeddings import DIMENSIONS, MAX_CHARS, embed_texts, sparse_document, sparse_query

ROOT = Path(__file__).parents[2]


def test_each_row_is_a_unit_vector() -> None:
    """Rows have the promised shape, type and length."""
    vectors = embed_texts(["where is my order?", "x", "日本語の文章", "é" * 10])
    assert vectors.shape == (4, DIMENSIONS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("texts", [[], [""], ["", " \n\t", "\u3000"]])
def test_blank_texts_are_zero_vectors(texts: list[str]) -> None:
    """A text without tokens gives zeros, never NaN."""
    vectors = embed_texts(texts)
    assert vectors.shape == (len(texts), DIMENSIONS)
    assert not vectors.any()


def test_order_and_neighbours_do_not_matter() -> None:
    """A text has the same vector whatever stands beside it, so padding cannot leak in."""
    alone = embed_texts(["refund order 17"])[0]
    beside = embed_texts(["", "word " * 5000, "refund order 17"])[2]
    np.testing.assert_array_equal(alone, beside)


def test_same_as_the_library() -> None:
    """Our pooling agrees with wordllama's own."""
    import wordllama  # type: ignore[import-untyped]

    model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    texts = ["a parcel arrived broken", "the weather in Zürich", "x"]
    np.testing.assert_allclose(embed_texts(texts), model.embed(texts, norm=True), atol=1e-6)


def test_meaning_is_near() -> None:
    """Related texts are nearer than unrelated ones."""
    question, near, far = embed_texts(
        ["My package arrived broken", "The parcel was damaged in transit", "Photosynthesis needs sunlight"]
    )
    assert question @ near > question @ far + 0.2


def test_odd_characters() -> None:
    """Half surrogate pairs, NUL and controls are embedded, not refused."""
    vectors = embed_texts(["broken \ud800 pair", "nul \x00 inside", "\x1b[0m"])
    assert np.isfinite(vectors).all()
    assert sparse_document("broken \ud800 pair").indices


def test_long_text_takes_bounded_work() -> None:
    """What lies beyond the limit changes nothing."""
    text = "lorem ipsum " * (MAX_CHARS // 12 + 1)
    np.testing.assert_array_equal(embed_texts([text]), embed_texts([text + "zebra " * 100_000]))


def test_sparse_words_meet() -> None:
    """A query and a document share the hashes of the words they share, whatever their case, accent or ending."""
    document = sparse_document("The REFUNDS for café order ERR_4711")
    assert set(sparse_query("refund cafe ERR_4711").indices) <= set(document.indices)
    assert set(sparse_query("天気").indices) <= set(sparse_document("東京の天気は晴れ").indices)
    assert not set(sparse_query("17").indices) & set(sparse_document("order 71").indices)
    assert not sparse_query("").indices
    assert all(value > 0 for value in document.values)


def test_first_use_from_many_threads_and_no_trace() -> None:
    """A fresh process may start with 16 threads at once; neither logging nor the network is touched."""
    script = """
import logging, socket
from concurrent.futures import ThreadPoolExecutor
from holdfast.memory.embeddings import embed_texts
def refuse(*args, **kwargs):
    raise AssertionError("the network was used")
socket.getaddrinfo = socket.create_connection = refuse
with ThreadPoolExecutor(16) as pool:
    rows = list(pool.map(lambda _: embed_texts(["hello world"])[0].tobytes(), range(64)))
assert len(set(rows)) == 1
assert logging.getLogger().handlers == [] and logging.getLogger().level == logging.WARNING
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_import_is_light() -> None:
    """Importing the room loads neither model nor engine."""
    script = "import sys, holdfast.memory.embeddings; assert not {'wordllama', 'qdrant_edge'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)


def test_threads_share_one_model() -> None:
    """Concurrent calls agree with each other."""
    texts = [f"note number {n}" for n in range(200)]
    expected = embed_texts(texts)
    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(lambda _: embed_texts(texts), range(16)):
            np.testing.assert_array_equal(got, expected)
    assert logging.getLogger("wordllama").handlers == []
