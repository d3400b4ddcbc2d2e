"""Eval mode of `fastconv.nn`: what runs as one operator, that it is what the layers give one by one, and when it is dropped."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv import nn
from fastconv.nn import inference
from fastconv.nn.module import Module


def settled(model: Module, seed: int = 1) -> Module:
    """With statistics and weights that are not those of the beginning."""
    draw = np.random.default_rng(seed)
    state = model.state_dict()
    model.load_state_dict({name: draw.uniform(0.5, 1.5, array.shape).astype(array.dtype) * (1 if "running_var" in name else
                           draw.choice((-1.0, 1.0), array.shape)) for name, array in state.items()})
    return model.eval()


def one_by_one(model: Module, x: np.ndarray) -> np.ndarray:
    """Nothing of it fused."""
    return model.forward(x)


def rng() -> np.random.Generator:
    return np.random.default_rng(4)


def block(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 3, stride, 1, bias=False, rng=rng()), nn.BatchNorm2d(out))


MODELS = {
    "conv": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, rng=rng())), ["Fused"]),
    "conv, norm, relu": (lambda: nn.Sequential(block(3, 8), nn.ReLU(), nn.MaxPool2d(2)), ["Fused", "Step"]),
    "biased conv and norm": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, rng=rng()), nn.BatchNorm2d(8), nn.SiLU()), ["Fused"]),
    "leaky": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, rng=rng()), nn.LeakyReLU(0.3)), ["Fused"]),
    "norm in front": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 1, rng=rng())),
                      ["Step", "Step", "Fused"]),
    "norm of no statistics": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1, rng=rng()), nn.BatchNorm2d(
        4, track_running_stats=False), nn.ReLU()), ["Fused", "Step", "Step"]),
    "grouped": (lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, rng=rng()), nn.BatchNorm2d(6), nn.Tanh()), ["Fused"]),
    "transposed, grouped": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1, rng=rng()), nn.ConvTranspose2d(
        4, 6, 3, 2, 1, 1, 2, rng=rng()), nn.BatchNorm2d(6), nn.ReLU()), ["Fused", "Fused"]),
    "linear": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 9, 5, rng=rng()), nn.BatchNorm1d(5), nn.GELU()),
               ["Step", "Fused", "Step", "Step"]),
    "dropout": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1, rng=rng()), nn.Dropout(), nn.Identity(), nn.ReLU()), ["Fused"]),
    "residual": (lambda: nn.Sequential(nn.Residual(block(3, 3)), nn.ReLU()), ["Sum"]),
    "residual, projected": (lambda: nn.Sequential(nn.Residual(nn.Sequential(block(3, 5, 2), nn.ReLU(), block(5, 5)), block(
        3, 5, 2)), nn.ReLU(), nn.Residual(block(5, 5))), ["Sum", "Sum"]),
    "residual of no weights": (lambda: nn.Sequential(nn.Residual(nn.Tanh()), nn.ReLU()), ["Sum"]),
    "residual of an activation": (lambda: nn.Sequential(nn.Residual(nn.Sequential(block(3, 3), nn.ReLU())), nn.ReLU()),
                                  ["Sum"]),
    "concat": (lambda: nn.Sequential(nn.Concat(nn.Sequential(block(3, 2), nn.ReLU()), nn.Identity(), nn.MaxPool2d(3, 1, 1),
                                               nn.Residual(block(3, 3)))), ["Joined"]),
}


@pytest.mark.parametrize("name", MODELS)
def test_it_is_what_the_layers_give(name):
    make, steps = MODELS[name]
    model = settled(make())
    x = np.random.default_rng(2).normal(size=(2, 3, 8, 9)).astype(np.float32)
    expected = one_by_one(model, x)
    for _ in range(3):  # a branch of a concat writes where the result is from the second time on
        made = model(x)
        np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    assert [type(step).__name__ for step in vars(model)["_program"].steps] == steps
    other = x[:1, :, :7]
    if name != "linear":
        np.testing.assert_allclose(model(other), one_by_one(model, other), rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_results_are_not_overwritten():
    model = settled(MODELS["concat"][0]())
    x = np.random.default_rng(2).normal(size=(2, 3, 8, 9)).astype(np.float32)
    first = model(x)
    kept = first.copy()
    model(2 * x)
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("name", ["conv, norm, relu", "residual, projected", "concat"])
def test_what_is_assigned_counts(name):
    model = settled(MODELS[name][0]())
    x = np.random.default_rng(2).normal(size=(2, 3, 8, 9)).astype(np.float32)
    model(x)
    for place, buffer in model._named(nn.Buffer):
        if buffer.dtype.kind != "f":
            continue
        before = model(x)
        with pytest.raises(ValueError, match="read-only"):
            buffer.data[...] = 1
        buffer.data = buffer.data * 1.5
        after = model(x)
        np.testing.assert_allclose(after, one_by_one(model, x), rtol=1e-4, atol=1e-4 * np.abs(after).max(), err_msg=place)
        assert not np.array_equal(before, after), place


def test_training_changes_what_runs():
    model = settled(MODELS["residual, projected"][0]())
    x = np.random.default_rng(2).normal(size=(4, 3, 8, 9)).astype(np.float32)
    before = model(x)
    model.train()
    optimizer = nn.SGD(model.parameters(), 0.1)
    model.backward(np.ones_like(model(x)))
    optimizer.step()
    model.eval()
    after = model(x)
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, one_by_one(model, x), rtol=1e-3, atol=1e-4 * np.abs(after).max())


def test_an_optimizer_says_that_the_model_is_in_eval_mode():
    model = nn.Sequential(nn.Conv2d(1, 1, 1, rng=rng())).eval()
    model(np.ones((1, 1, 2, 2), np.float32))
    model[0].weight.grad = np.ones((1, 1, 1, 1), np.float32)
    with pytest.raises(RuntimeError, match=r"call its train\(\)"):
        nn.SGD(model.parameters(), 0.1).step()


def test_a_program_is_made_once(monkeypatch):
    made = []
    monkeypatch.setattr(inference, "steps", lambda layers, steps=inference.steps: (made.append(1), steps(layers))[1])
    model = settled(MODELS["conv, norm, relu"][0]())
    for _ in range(3):
        model(np.ones((1, 3, 8, 8), np.float32))
    assert len(made) == 1


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("shape", "place", "says"), [
    ((2, 4, 8, 9), "first.0", "expects 3 input channels"),
    ((2, 3, 1, 1), "tail.1.body", "kernel does not fit"),
])
def test_errors_say_where(training, shape, place, says):
    model = nn.Sequential({"first": block(3, 4), "relu": nn.ReLU(), "tail": nn.Sequential(
        nn.Identity(), nn.Residual(nn.Conv2d(4, 4, 5, rng=rng())))}).train(training)
    with pytest.raises(ValueError, match=rf"^{place}: Conv2d\(.*got input of shape .*{says}"):
        model(np.ones(shape, np.float32))


def test_the_same_module_twice_is_refused():
    relu = nn.ReLU()
    with pytest.raises(ValueError, match=r"the same ReLU at '1' and at '2.body.0'"):
        nn.Sequential(nn.Identity(), relu, nn.Residual(nn.Sequential(relu)))
    with pytest.raises(TypeError, match="made of modules"):
        nn.Sequential(nn.ReLU(), np.tanh)
    with pytest.raises(RuntimeError, match="needs a forward in training mode"):
        nn.Tanh().backward(np.ones(3))


@pytest.mark.parametrize("training", [True, False])
def test_no_images(training):
    rng_ = rng()
    model = nn.Sequential(nn.Conv2d(1, 2, 3, rng=rng_), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3, rng=rng_))
    model.train(training)
    made = model(np.ones((0, 1, 6, 6), np.float32))
    assert made.shape == (0, 3) and model(np.ones((2, 1, 6, 6), np.float32)).shape == (2, 3)
    if training:
        model(np.ones((0, 1, 6, 6), np.float32))
        assert model.backward(made).shape == (0, 1, 6, 6)
        assert all(not parameter.grad.any() for parameter in model.parameters())
