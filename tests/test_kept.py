"""What is kept of earlier calls: found again where only the threads differ, made without work that nobody needs, bounded."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

import fastconv
from fastconv import candidates, ops, plan
from fastconv.backends import get, numba_jit
from fastconv.kept import Kept

AVAILABLE = [name for name, reason in fastconv.backends().items() if reason is None and get(name).device == "cpu"]


def test_the_least_recently_used_goes_first():
    kept = Kept(100)
    kept.put("a", 1, 40)
    kept.put("b", 2, 40)
    assert kept.get("a") == 1
    kept.put("c", 3, 40)
    assert [kept.get(key) for key in "abc"] == [1, None, 3] and kept.nbytes == 80
    kept.put("c", 4, 60)
    assert [kept.get(key) for key in "abc"] == [1, None, 4] and kept.nbytes == 100
    kept.put("a", 5, 101)  # alone too large
    assert [kept.get(key) for key in "abc"] == [None, None, 4] and kept.nbytes == 60


def lengths(first: int, count: int) -> None:
    weight = np.ones((1, 1, 3), np.float32)
    for length in range(first, first + count):
        fastconv.conv1d(np.zeros((1, 1, length), np.float32), weight)


def test_memory_does_not_grow_with_every_new_shape():
    with fastconv.config(num_threads=1):
        tracemalloc.start()
        try:
            traced = []
            for first in (1000, 2500, 4000):  # the first two displace what other tests left in the caches, which is not traced
                lengths(first, ops._MEMO_SIZE)
                gc.collect()
                traced.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    _, filled, after = traced
    assert 0 < after < 1.2 * filled < 12e6


@pytest.mark.skipif("numba" not in AVAILABLE, reason="has tables")
def test_tables_are_kept_within_bytes(monkeypatch):
    kept = Kept(1 << 20)
    monkeypatch.setattr(numba_jit, "_calls", kept)
    weight = np.ones((1, 1, 3), np.float32)
    for length in range(20_000, 20_020):  # 160 KB each
        x = np.arange(length, dtype=np.float32)[None, None]
        np.testing.assert_array_equal(fastconv.conv1d(x, weight, backend="numba"), (x[..., :-2] + x[..., 1:-1] + x[..., 2:]))
        assert kept.nbytes <= kept.most_bytes
    assert kept.nbytes > kept.most_bytes / 2


@pytest.mark.parametrize("name", AVAILABLE)
def test_other_threads_find_what_was_planned_and_bound(name, monkeypatch):
    backend = get(name)
    asked = []
    bind, seconds = backend.bind, backend.seconds
    monkeypatch.setattr(backend, "bind", lambda *given: asked.append("bind") or bind(*given), raising=False)
    monkeypatch.setattr(backend, "seconds", lambda *given: asked.append("seconds") or seconds(*given), raising=False)
    x, w = np.ones((1, 2, 17, 19), np.float32), np.ones((3, 2, 3, 3), np.float32)
    plan._choose.cache_clear()
    candidates._bind.cache_clear()
    ops._memo.clear()
    ops._shortcuts.clear()
    operator = fastconv.prepare(w, backend=name)
    fastconv.conv2d(x, w, backend=name)
    operator(x)
    assert asked.count("bind") <= 2, "planned without binding whoever was not chosen"
    asked.clear()
    for threads in (1, 2, 3):
        with fastconv.config(num_threads=threads):
            fastconv.conv2d(x, w, backend=name)
            operator(x)
    assert not asked


@pytest.mark.skipif("cython" not in AVAILABLE, reason="has kernels that are bound")
def test_a_plan_binds_only_what_it_chose(monkeypatch):
    backend, bound = get("cython"), []
    bind = backend.bind
    monkeypatch.setattr(backend, "bind", lambda *given: bound.append(given[1]) or bind(*given), raising=False)
    fastconv.conv2d(np.ones((1, 2, 23, 29), np.float32), np.ones((3, 2, 3, 3), np.float32))
    assert len(bound) <= 1
