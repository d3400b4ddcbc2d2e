"""The expected batch: it moves the choice, the batch itself never does; in training it is 8 unless somebody says more."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv
from fastconv import candidates, native, nn, settings
from fastconv.problem import ConvProblem

LAYER = dict(ndim=2, padding=1)
needs_native = pytest.mark.skipif(native.runtime() is None, reason="no native kernels")


def _seconds(images: int, batch: int = 1, size: int = 8) -> dict[str, float]:
    problem = ConvProblem.from_shapes((batch, 256, size, size), (256, 256, 3, 3), **LAYER)
    with fastconv.config(expected_batch=images):
        return {str(each): each.seconds for each in candidates.ranked(problem, "cython")[0] if each.seconds is not None}


@needs_native
def test_packing_counts_for_so_many():
    alone, many, most = _seconds(1), _seconds(8), _seconds(8192)
    assert alone.keys() == many.keys() and all(many[name] <= alone[name] for name in alone)
    packs = [name for name in alone if "gemm" in name or "winograd" in name]
    assert packs and all(most[name] < many[name] < alone[name] for name in packs)


@needs_native
def test_the_choice_follows_it():
    for size in (2, 4, 6, 8, 12):
        alone, many = _seconds(1, size=size), _seconds(8, size=size)
        if min(alone, key=alone.get) != min(many, key=many.get):
            return
    pytest.fail("no layer is computed otherwise")


@needs_native
def test_the_batch_itself_changes_nothing():
    assert _seconds(1, batch=1) == _seconds(1, batch=32) and _seconds(8, batch=1) == _seconds(8, batch=32)


def test_training_expects_eight(monkeypatch):
    seen = []
    conv2d = fastconv.ops.conv2d

    def watched(*arguments, **keywords):
        seen.append(settings.current().expected_batch)
        return conv2d(*arguments, **keywords)

    monkeypatch.setattr("fastconv.ops.conv2d", watched)
    layer, x = nn.Conv2d(2, 3, 3, rng=np.random.default_rng(0)), np.ones((1, 2, 5, 5), np.float32)
    layer(x)
    with fastconv.config(expected_batch=3):
        layer(x)
    assert seen == [8, 3] and settings.current().expected_batch is None


@pytest.mark.parametrize("value, error", [
    (0, ValueError), (-1, ValueError), (8193, ValueError), (True, TypeError), (1.0, TypeError), ("2", TypeError)])
def test_what_is_refused(value, error):
    with pytest.raises(error, match="expected_batch must be"), fastconv.config(expected_batch=value):
        pass


@needs_native
def test_whether_phases_are_joined_does_not_depend_on_who_asked_first():
    """It is remembered, and a kernel is bound by it."""
    who = candidates.get("cython")
    layers = [ConvProblem.from_shapes((1, c, n, n), (o, c, k, k), ndim=2, stride=s, padding=k // 2, direction="backward_input")
              for c, o, n, k, s in ((512, 1024, 2, 5, 3), (128, 1024, 6, 7, 4), (128, 1024, 4, 4, 2), (3, 64, 64, 7, 2))]
    found = []
    for images in (1, 8, 512):
        candidates._joined.cache_clear()
        with fastconv.config(expected_batch=images):
            found.append([candidates._joined(p, who, c) is not None for p in layers for c in candidates.listed(who, p)
                          if candidates.refusal(who, p, c) is None])
    candidates._joined.cache_clear()
    assert any(found[0]) and not all(found[0]) and found[0] == found[1] == found[2]


def test_eval_mode_expects_no_batch():
    seen, layer = [], nn.Conv2d(2, 3, 3, rng=np.random.default_rng(0)).eval()
    with layer._calls():
        seen.append(settings.current().expected_batch)
    with layer.train()._calls():
        seen.append(settings.current().expected_batch)
    assert seen == [None, 8]
