"""Eval mode's memory: results lie where others lay, and nobody who reads one sees it change."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest
from test_nn_inference import MODELS, block, rng, settled

import fastconv
from fastconv import lifetimes, nn
from fastconv.nn import inference

X = np.random.default_rng(2).normal(size=(2, 3, 8, 9)).astype(np.float32)
MORE = {
    "long": lambda: nn.Sequential(block(3, 8), nn.ReLU(), block(8, 16, 2), nn.ReLU6(), nn.Residual(nn.Sequential(
        block(16, 24), nn.ReLU(), block(24, 16))), nn.ReLU(), block(16, 4), nn.Flatten()),
    "shortcuts of views": lambda: nn.Sequential(block(3, 4), nn.Residual(nn.Sequential(nn.Identity(), nn.Dropout(), block(
        4, 4))), nn.Residual(nn.Identity()), nn.Identity(), nn.Residual(nn.Residual(block(4, 4)))),
    "concat of residuals": lambda: nn.Sequential(block(3, 8), nn.Concat(nn.Sequential(
        block(8, 4), nn.ReLU(), block(4, 5)), nn.Sequential(nn.Residual(block(8, 8)), block(8, 2)), nn.MaxPool2d(3, 1, 1),
        nn.Identity()), block(23, 4), nn.Residual(block(4, 4))),
    "views that are read twice": lambda: nn.Sequential(block(3, 2), nn.Flatten(), nn.Residual(nn.Sequential(nn.Linear(
        144, 144, rng=rng()), nn.ReLU(), nn.Linear(144, 144, rng=rng())))),
    "linear": lambda: nn.Sequential(block(3, 8), nn.GlobalAvgPool(), nn.Flatten(), nn.Linear(8, 5, rng=rng()), nn.ReLU(),
                                    nn.Linear(5, 3, rng=rng())),
}
ALL = {**{name: make for name, (make, _) in MODELS.items()}, **MORE}


def planned(model: nn.Module) -> list[lifetimes.Planned]:
    return [it for it in vars(model)["_program"].memories.kept.values() if isinstance(it, lifetimes.Planned)]


def poison(model: nn.Module) -> int:
    """NaN where results were, so that whatever is not computed anew shows; how many results have places."""
    arrays = [array for each in planned(model) for _, array in each.places if array is not None]
    for array in arrays:
        array.fill(np.nan)
    return len(arrays)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("threads", [1, 3])
def test_every_call_gives_the_same_bits(name, threads):
    model = settled(ALL[name]())
    with fastconv.config(num_threads=threads):
        first = model(X)
        for _ in range(5):
            np.testing.assert_array_equal(model(X), first)
            poison(model)
        other = model(2 * X)
        np.testing.assert_array_equal(model(X), first)
        np.testing.assert_array_equal(model(2 * X), other)


@pytest.mark.parametrize("name", ALL)
def test_results_stay_as_they_are(name):
    model = settled(ALL[name]())
    made = [model(X) for _ in range(6)]
    kept = [array.copy() for array in made]
    model(3 * X)
    poison(model)
    for array, copied in zip(made, kept):
        np.testing.assert_array_equal(array, copied)


def test_results_lie_over_those_that_are_done():
    model = settled(nn.Sequential(*[layer for _ in range(8) for layer in (block(3, 3), nn.ReLU())]))
    for _ in range(3):
        model(X)
    assert poison(model) == 7
    assert planned(model)[0].size == 2 * -(-X.nbytes // 64) * 64


class Collecting(nn.Module):
    """Keeps what it reads."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def forward(self, input: np.ndarray) -> np.ndarray:
        self.seen.append(input)
        return input


def test_whoever_keeps_what_it_reads_may():
    model = settled(nn.Sequential(block(3, 4), nn.ReLU(), Collecting(), block(4, 4), nn.ReLU(), block(4, 4)))
    for _ in range(4):
        model(X)
    seen = model[2].seen
    copied = seen[0].copy()
    model(2 * X)
    assert poison(model)
    for array in seen[:4]:
        np.testing.assert_array_equal(array, copied)
    assert not np.array_equal(seen[4], copied)


class Changing(nn.Module):
    """Gives other shapes in every call."""

    def __init__(self) -> None:
        self.calls = 0

    def forward(self, input: np.ndarray) -> np.ndarray:
        self.calls += 1
        return input[:, :, : 4 + self.calls % 3]


def test_shapes_may_change_on_the_way():
    layers = nn.Sequential(block(3, 4), nn.ReLU()), Changing(), nn.Sequential(block(4, 5), nn.ReLU(), block(5, 4))
    model = settled(nn.Sequential(*layers))
    for _ in range(9):
        made = model(X)
        expected = layers[2].forward(layers[0].forward(X)[:, :, : 4 + layers[1].calls % 3])
        np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_threads_have_memory_of_their_own():
    model = settled(MORE["long"]())
    inputs = [X * (1 + i) for i in range(4)]
    expected = [model(x) for x in inputs]
    wrong: list[int] = []

    def calls(i: int) -> None:
        for _ in range(20):
            if not np.array_equal(model(inputs[i]), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=calls, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_other_settings_count():
    model, name = settled(MORE["long"]()), "im2col"
    for _ in range(4):
        mine = model(X)
    with fastconv.config(backend=name):
        fresh = settled(MORE["long"]())(X)
        for _ in range(4):
            np.testing.assert_array_equal(model(X), fresh)
    np.testing.assert_array_equal(model(X), mine)


@pytest.mark.parametrize("name", ["long", "concat of residuals"])
def test_known_calls_follow_each_other(monkeypatch, name):
    """Where the kernels have shortcuts, steps do not run any more."""
    if fastconv.backends().get("cython") is not None:
        pytest.skip("no native kernels")
    model = settled(MORE[name]())
    for _ in range(4):
        expected = model(X)
    ran = []
    monkeypatch.setattr(inference.Fused, "run", lambda self, *_: ran.append(self.place))
    np.testing.assert_array_equal(model(X), expected)
    assert not ran


def test_little_is_kept(monkeypatch):
    model = settled(MORE["long"]())
    for height in range(5, 12):
        for _ in range(3):
            model(np.ones((1, 3, height, 8), np.float32))
    assert len(planned(model)) == lifetimes.SHAPES_KEPT
    monkeypatch.setattr(lifetimes, "KEPT_BYTES", 1 << 10)
    plans = []
    monkeypatch.setattr(lifetimes.Seen, "planned", lambda self, plan=lifetimes.Seen.planned: plans.append(self) or plan(self))
    for _ in range(5):
        model(X)
    assert len(planned(model)) == lifetimes.SHAPES_KEPT - 1
    assert len(plans) == 1


def test_copies_have_none_of_it():
    model = settled(MORE["long"]())
    for _ in range(3):
        expected = model(X)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not planned(other)
        for _ in range(4):
            np.testing.assert_array_equal(other(X), expected)
    np.testing.assert_array_equal(model(X), expected)
