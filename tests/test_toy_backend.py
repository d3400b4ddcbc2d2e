"""A backend is one file and one word: with these, everything that iterates the registry takes it up."""

from __future__ import annotations

import importlib
import sys
import types

import numpy as np
import pytest
import toy_backend
from conftest import backends_under_test

import fastconv
from fastconv import settings
from fastconv.backends import ORDER, enable_backend, register, registry
from fastconv.verify.matrix import matrix, other_directions

package = importlib.import_module("fastconv.backends")  # `fastconv.backends` is the function
X, W = np.ones((1, 2, 6, 6), np.float32), np.ones((3, 2, 3, 3), np.float32)


@pytest.fixture
def in_order(monkeypatch, toy_registry):
    """The module in the folder, its name in ORDER."""
    monkeypatch.setitem(sys.modules, "fastconv.backends.toy_backend", toy_backend)
    monkeypatch.setattr(package, "ORDER", (*ORDER, "toy_backend"))
    registry().clear()


def test_one_word_in_order_is_enough(in_order, request):
    assert list(fastconv.backends())[-1] == "toy" and fastconv.backends()["toy"] is None
    assert np.array_equal(fastconv.conv2d(X, W, backend="toy"), np.full((1, 3, 4, 4), 18, np.float32))
    assert "toy direct" in str(fastconv.explain(X, W))
    if not request.config.getoption("--backends"):
        assert "toy" in backends_under_test(request.config)


def test_check_takes_it_up(in_order):
    report = fastconv.check(quick=True, backends=["im2col", "toy"])
    row, = (row for row in report.rows if row.backend == "toy")
    assert report.ok and row.problems == row.passed == len(matrix(quick=True)) + len(other_directions(quick=True)) - row.refused
    text = str(report)
    for column in ("backend", "algorithm", "isa", "problems", "passed", "worst error / bound", "refused"):
        assert column in text
    everything = fastconv.check(backends=["toy"])
    assert everything.ok, str(everything)
    row, = everything.rows
    assert row.refused > 0 and row.passed > 10
    assert f"{row.refused} x computes 2-D problems" in str(everything)


def test_the_benchmark_lists_it(in_order):
    from fastconv.bench import contenders

    assert "toy" in [contender.backend for contender in contenders.chosen()]


def test_its_refusal_is_told(in_order):
    w = np.ones((2, 1, 3, 3), np.float32)
    with pytest.raises(fastconv.Unsupported, match="computes 2-D problems without groups"):
        fastconv.conv2d(X, w, groups=2, backend="toy")
    assert "computes 2-D problems without groups" in str(fastconv.explain(X, w, groups=2))
    fastconv.conv2d(X, w, groups=2)


def test_a_registered_object_replaces_one_of_its_name(toy_registry):
    register(toy_backend.ToyBackend())
    problem = fastconv.ConvProblem.from_text("mb1_ic2ih6_oc3oh4_kh3")
    first = fastconv.explain(problem, backend="toy").kernel

    class Other(toy_backend.ToyKernel):
        pass

    changed = toy_backend.ToyBackend()
    changed.kernel = Other
    register(changed)
    second = fastconv.explain(problem, backend="toy").kernel
    assert type(first) is toy_backend.ToyKernel and type(second) is Other


@pytest.mark.parametrize("spoil, told", [
    (lambda toy: toy, "an instance, not a class"), (lambda toy: object(), "a name of letters"),
    (lambda toy: None, "a method bind"), (lambda toy: changed(toy, device="tpu"), "a device, 'cpu' or 'cuda' (it has 'tpu')"),
    (lambda toy: changed(toy, name="auto"), "not 'auto'"), (lambda toy: changed(toy, name="a/b"), "has 'a/b'"),
    (lambda toy: changed(toy, name=5), "has 5"),
    (lambda toy: changed(toy, refuses="no"), "a method refuses"), (lambda toy: changed(toy, seconds=None), "a method seconds")],
    ids=range(9))
def test_what_does_not_keep_the_protocol_is_refused(spoil, told, toy_registry):
    before = dict(fastconv.backends())
    with pytest.raises(TypeError, match="keep the protocol") as caught:
        register(spoil(toy_backend.ToyBackend))
    assert told in str(caught.value) and len(str(caught.value)) < 500
    assert fastconv.backends() == before


def changed(kind, **attributes):
    made = kind()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


class _Point:
    name = "toy"

    def load(self):
        return types.SimpleNamespace(backend=toy_backend.backend)


@pytest.fixture
def installed(monkeypatch, toy_registry):
    """As if a package that declares the entry point were installed."""
    monkeypatch.setattr(package, "entry_points", lambda group: [_Point()] if group == "fastconv.backends" else [])


def test_installing_changes_nothing_until_it_is_named(installed):
    assert "toy" not in fastconv.backends()
    with pytest.raises(ValueError, match="'toy'"):
        fastconv.conv2d(X, W, backend="toy")
    enable_backend("toy")
    assert fastconv.conv2d(X, W, backend="toy")[0, 0, 0, 0] == 18


def test_the_setting_names_it(installed):
    with settings.config(backends=("toy",)):
        assert "toy" in fastconv.backends()
        assert fastconv.conv2d(X, W, backend="toy")[0, 0, 0, 0] == 18


def test_an_unknown_one_says_where_it_would_come_from(toy_registry):
    with pytest.raises(fastconv.Unavailable, match="fastconv.backends"):
        enable_backend("nonesuch")
