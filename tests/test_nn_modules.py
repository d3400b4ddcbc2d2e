"""Layers, losses and optimisers of `fastconv.nn`: gradients against finite differences, results against PyTorch's."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import numpy as np
import pytest

import fastconv
from fastconv import native, nn
from fastconv.nn.module import Buffer

RNG = np.random.default_rng(7)


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


# layer, input shape; arguments as PyTorch's, which the same call makes
LAYERS: dict[str, tuple[str, tuple, dict, tuple[int, ...]]] = {
    "conv1d": ("Conv1d", (4, 6, 3), dict(padding=1, groups=2), (2, 4, 9)),
    "conv2d": ("Conv2d", (3, 5, 3), dict(stride=2, padding=1), (2, 3, 9, 8)),
    "conv2d, dilated": ("Conv2d", (3, 4, (3, 2)), dict(padding=(2, 1), dilation=2, bias=False), (2, 3, 9, 8)),
    "conv2d, reflected": ("Conv2d", (3, 4, 3), dict(padding=1, padding_mode="reflect"), (2, 3, 6, 7)),
    "conv3d": ("Conv3d", (2, 3, 2), dict(stride=(1, 2, 1)), (1, 2, 5, 6, 4)),
    "conv_transpose1d": ("ConvTranspose1d", (3, 4, 4), dict(stride=2, padding=1), (2, 3, 5)),
    "conv_transpose2d": ("ConvTranspose2d", (4, 6, 3, 2, 1, 1, 2), {}, (2, 4, 5, 4)),
    "conv_transpose2d, more than a stride": ("ConvTranspose2d", (3, 2, 3, 2, 1, 2), dict(dilation=3), (2, 3, 5, 4)),
    "conv_transpose2d, within the padding": ("ConvTranspose2d", (3, 2, 3, 1, (3, 1), 2), dict(dilation=3), (2, 3, 5, 7)),
    "conv_transpose3d": ("ConvTranspose3d", (2, 3, 2), dict(stride=2, bias=False), (1, 2, 3, 2, 3)),
    "linear": ("Linear", (6, 5), {}, (4, 6)),
    "linear, of many": ("Linear", (6, 5), dict(bias=False), (2, 3, 6)),
    "batch_norm1d": ("BatchNorm1d", (3,), {}, (5, 3)),
    "batch_norm1d, of rows": ("BatchNorm1d", (3,), dict(momentum=0.3), (5, 3, 4)),
    "batch_norm2d": ("BatchNorm2d", (3,), dict(eps=1e-3), (4, 3, 5, 4)),
    "batch_norm2d, mean of all": ("BatchNorm2d", (3,), dict(momentum=None), (4, 3, 5, 4)),
    "batch_norm2d, of nothing": ("BatchNorm2d", (3,), dict(affine=False, track_running_stats=False), (4, 3, 5, 4)),
    "batch_norm3d": ("BatchNorm3d", (2,), {}, (2, 2, 3, 2, 4)),
    "group_norm": ("GroupNorm", (2, 6), {}, (3, 6, 4, 5)),
    "group_norm, bare": ("GroupNorm", (3, 6), dict(affine=False), (3, 6, 4)),
    "layer_norm": ("LayerNorm", (6,), {}, (3, 4, 6)),
    "layer_norm, two axes": ("LayerNorm", ((4, 6),), dict(eps=1e-3), (3, 4, 6)),
    "layer_norm, bare": ("LayerNorm", (6,), dict(elementwise_affine=False), (3, 6)),
    "max_pool1d": ("MaxPool1d", (3,), dict(stride=2), (2, 3, 9)),
    "max_pool2d": ("MaxPool2d", (3, 2, 1), {}, (2, 3, 8, 9)),
    "max_pool3d": ("MaxPool3d", (2,), dict(ceil_mode=True), (1, 2, 5, 4, 3)),
    "avg_pool1d": ("AvgPool1d", (3, 2), {}, (2, 3, 9)),
    "avg_pool2d": ("AvgPool2d", (3, 2, 1), dict(count_include_pad=False), (2, 3, 8, 9)),
    "avg_pool3d": ("AvgPool3d", (2,), dict(divisor_override=3), (1, 2, 4, 4, 6)),
    "lp_pool1d": ("LPPool1d", (2, 3), {}, (2, 3, 9)),
    "lp_pool2d": ("LPPool2d", (3, 2), dict(stride=1), (2, 3, 5, 6)),
    "lp_pool3d": ("LPPool3d", (2, 2), {}, (1, 2, 4, 4, 6)),
    "adaptive_avg_pool1d": ("AdaptiveAvgPool1d", (3,), {}, (2, 3, 8)),
    "adaptive_avg_pool2d": ("AdaptiveAvgPool2d", ((3, None),), {}, (2, 3, 8, 5)),
    "adaptive_avg_pool3d": ("AdaptiveAvgPool3d", (2,), {}, (1, 2, 5, 4, 3)),
    "adaptive_max_pool1d": ("AdaptiveMaxPool1d", (3,), {}, (2, 3, 8)),
    "adaptive_max_pool2d": ("AdaptiveMaxPool2d", (3,), {}, (2, 3, 8, 7)),
    "adaptive_max_pool3d": ("AdaptiveMaxPool3d", (2,), {}, (1, 2, 5, 4, 3)),
    "relu": ("ReLU", (), {}, (3, 40)),
    "relu6": ("ReLU6", (), {}, (3, 40)),
    "leaky_relu": ("LeakyReLU", (0.2,), {}, (3, 40)),
    "sigmoid": ("Sigmoid", (), {}, (3, 40)),
    "tanh": ("Tanh", (), {}, (3, 40)),
    "gelu": ("GELU", (), {}, (3, 40)),
    "gelu_tanh": ("GELU", ("tanh",), {}, (3, 40)),
    "silu": ("SiLU", (), {}, (3, 40)),
    "hardswish": ("Hardswish", (), {}, (3, 40)),
    "softmax": ("Softmax", (1,), {}, (3, 4, 5)),
    "flatten": ("Flatten", (), {}, (3, 4, 5)),
    "identity": ("Identity", (), {}, (3, 4)),
}
OWN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {  # what PyTorch does not have
    "min_pool1d": (lambda: nn.MinPool1d(3, 2), (2, 3, 9)),
    "min_pool2d": (lambda: nn.MinPool2d(3, 2, 1), (2, 3, 8, 9)),
    "min_pool3d": (lambda: nn.MinPool3d(2), (1, 2, 4, 4, 6)),
    "global_avg_pool": (lambda: nn.GlobalAvgPool(), (2, 3, 4, 5)),
    "global_max_pool": (lambda: nn.GlobalMaxPool(), (2, 3, 4, 5)),
    "permute": (lambda: nn.Permute(0, 2, 3, 1), (2, 3, 4, 5)),
    "scale": (lambda: nn.Scale(3, 0.5), (2, 3, 4, 5)),
    "scale, channels_last": (lambda: nn.Scale(3, 0.5, layout="channels_last"), (2, 4, 5, 3)),
    "conv2d, channels_last": (lambda: nn.Conv2d(3, 4, 3, padding=1, layout="channels_last", rng=rng()), (2, 6, 5, 3)),
    "conv_transpose2d, channels_last": (lambda: nn.ConvTranspose2d(3, 4, 3, 2, layout="channels_last", rng=rng()),
                                        (2, 6, 5, 3)),
    "residual": (lambda: nn.Residual(nn.Conv2d(3, 3, 3, padding=1, rng=rng())), (2, 3, 5, 4)),
    "residual, projected": (lambda: nn.Residual(nn.Conv2d(3, 4, 3, padding=1, rng=rng()), nn.Conv2d(3, 4, 1, rng=rng())),
                            (2, 3, 5, 4)),
    "concat": (lambda: nn.Concat(nn.Conv2d(3, 2, 1, rng=rng()), nn.Identity(), nn.Conv2d(3, 1, 3, padding=1, rng=rng())),
               (2, 3, 5, 4)),
    "sequential": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 4, rng=rng()), nn.Tanh()), (2, 3, 4)),
}


def made(name: str) -> nn.Module:
    if name in OWN:
        return OWN[name][0]()
    kind, arguments, keywords, _ = LAYERS[name]
    seeded = {"rng": rng()} if kind.startswith(("Conv", "Linear")) else {}
    return getattr(nn, kind)(*arguments, **keywords, **seeded)


def shape_of(name: str) -> tuple[int, ...]:
    return OWN[name][1] if name in OWN else LAYERS[name][3]


def arrays_of(module: nn.Module) -> dict[str, np.ndarray]:
    return {name: buffer.data for name, buffer in module._named(Buffer)}


@pytest.mark.parametrize("name", [*LAYERS, *OWN])
def test_gradients_are_finite_differences(name):
    """In float64, along random directions of the input and of every parameter."""
    module = made(name).to("float64")
    draw = np.random.default_rng(5)
    for parameter in module.parameters():
        parameter.data = draw.normal(size=parameter.shape)
    x = draw.normal(size=shape_of(name))
    y = module(x)
    g = draw.normal(size=y.shape)
    of_input = module.backward(g)
    assert of_input.shape == x.shape and of_input.dtype == y.dtype == np.float64
    step = 1e-6

    def loss(at: np.ndarray) -> float:
        return float((copy.deepcopy(module)(at) * g).sum())

    along = draw.normal(size=x.shape)
    expected = (loss(x + step * along) - loss(x - step * along)) / (2 * step)
    np.testing.assert_allclose((of_input * along).sum(), expected, rtol=1e-6, atol=1e-6)
    for parameter in module.parameters():
        gradient, kept = parameter.grad, parameter.data.copy()
        assert gradient is not None and gradient.shape == parameter.shape
        along = draw.normal(size=parameter.shape)
        found = []
        for sign in (1, -1):
            parameter.data = kept + sign * step * along
            found.append(loss(x))
        parameter.data = kept
        np.testing.assert_allclose((gradient * along).sum(), (found[0] - found[1]) / (2 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("number", range(60))
def test_gradients_of_random_convolutions_are_the_adjoint(number):
    """<y, g> = <x, ∂x> = <w, ∂w>, whatever the geometry: y is linear in x and in w. Every other one is transposed."""
    dice = random.Random(number)
    ndim, groups, transposed = dice.choice((1, 2, 2, 3)), dice.choice((1, 2, 3)), number % 2 == 1
    kernel, stride, dilation = (tuple(dice.randint(1, most) for _ in range(ndim)) for most in (4, 3, 3))
    padding = tuple((dice.randint(0, k), dice.randint(0, k)) for k in kernel)
    size = tuple(dice.randint(5, 7) + d * k for d, k in zip(dilation, kernel))
    more = {"output_padding": tuple(dice.randrange(max(s, d)) for s, d in zip(stride, dilation))} if transposed else {}
    module = getattr(nn, f"Conv{'Transpose' * transposed}{ndim}d")(
        groups * dice.randint(1, 3), groups * dice.randint(1, 3), kernel, stride, padding, dilation=dilation, groups=groups,
        bias=False, layout=dice.choice(("channels_first", "channels_last")), rng=rng(), **more).to("float64")
    shape = (*size, module.in_channels) if module.layout == "channels_last" else (module.in_channels, *size)
    draw = np.random.default_rng(number)
    x = draw.normal(size=(2, *shape))
    y = module(x)
    g = draw.normal(size=y.shape)
    of_input = module.backward(g)
    for array, gradient in ((x, of_input), (module.weight.data, module.weight.grad)):
        np.testing.assert_allclose((array * gradient).sum(), (y * g).sum(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_as_pytorch(name, training):
    torch = pytest.importorskip("torch")
    kind, arguments, keywords, shape = LAYERS[name]
    ours, theirs = made(name), getattr(torch.nn, kind)(*arguments, **keywords)
    draw = np.random.default_rng(5)
    state = {key: (draw.normal(size=value.shape).astype(value.dtype) ** 2 + 0.1 if value.dtype.kind == "f" else value)
             for key, value in ours.state_dict().items()}
    ours.load_state_dict(state)
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    ours.train(training)
    theirs.train(training)
    x = draw.normal(size=shape).astype(np.float32)
    expected = theirs(torch.from_numpy(x).requires_grad_())
    y = ours(x)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
    if not training:
        return
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key], value.numpy(), rtol=1e-5, atol=1e-6)
    g = draw.normal(size=y.shape).astype(np.float32)
    seen = torch.from_numpy(x).requires_grad_()
    theirs.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
    theirs(seen).backward(torch.from_numpy(g))
    np.testing.assert_allclose(ours.backward(g), seen.grad.numpy(), rtol=1e-4, atol=1e-4)
    for (key, mine), other in zip(ours.named_parameters(), theirs.parameters()):
        np.testing.assert_allclose(mine.grad, other.grad.numpy(), rtol=1e-4, atol=1e-4, err_msg=key)


@pytest.mark.parametrize("name", [name for name in [*LAYERS, *OWN] if made(name).parameters()])
def test_gradients_add_up_until_they_are_zeroed(name):
    module = made(name)
    x = RNG.normal(size=shape_of(name)).astype(np.float32)
    first = []
    for _ in range(2):
        y = module(x)
        assert module.backward(np.ones_like(y), needs_input=False) is None or not module.parameters()
        first.append([parameter.grad.copy() for parameter in module.parameters()])
    for once, twice in zip(*first):
        np.testing.assert_allclose(2 * once, twice, rtol=1e-5, atol=1e-5)
    module.zero_grad()
    assert all(parameter.grad is None for parameter in module.parameters())


LOSSES = {
    "mse": ("MSELoss", {}), "mse, summed": ("MSELoss", dict(reduction="sum")), "mse, each": ("MSELoss", dict(reduction="none")),
    "bce": ("BCEWithLogitsLoss", {}), "bce, summed": ("BCEWithLogitsLoss", dict(reduction="sum")),
    "bce, weighted": ("BCEWithLogitsLoss", dict(weight=[1.0, 2.0, 3.0, 0.5], pos_weight=[2.0, 1.0, 0.5, 3.0])),
    "ce": ("CrossEntropyLoss", {}), "ce, summed": ("CrossEntropyLoss", dict(reduction="sum")),
    "ce, each": ("CrossEntropyLoss", dict(reduction="none")),
    "ce, smoothed": ("CrossEntropyLoss", dict(label_smoothing=0.2, ignore_index=1)),
    "ce, weighted": ("CrossEntropyLoss", dict(weight=[1.0, 2.0, 3.0, 0.5])),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_as_pytorch(name):
    torch = pytest.importorskip("torch")
    kind, keywords = LOSSES[name]
    as_tensors = {key: torch.tensor(value) if isinstance(value, list) else value for key, value in keywords.items()}
    draw = np.random.default_rng(2)
    x = draw.normal(size=(6, 4)).astype(np.float32) * 3
    t = draw.integers(0, 4, 6) if kind.startswith("Cross") else draw.random((6, 4)).astype(np.float32)
    ours, theirs = getattr(nn, kind)(**keywords), getattr(torch.nn, kind)(**as_tensors)
    seen = torch.from_numpy(x).requires_grad_()
    expected = theirs(seen, torch.from_numpy(t))
    np.testing.assert_allclose(ours(x, t), expected.detach().numpy(), rtol=1e-5, atol=1e-6)
    expected.backward(torch.ones_like(expected))
    np.testing.assert_allclose(ours.backward(), seen.grad.numpy(), rtol=1e-4, atol=1e-6)
    with pytest.raises(RuntimeError, match="one for each"):
        ours.backward()


OPTIMIZERS = {
    "sgd": ("SGD", dict(lr=0.1)), "momentum": ("SGD", dict(lr=0.1, momentum=0.9, weight_decay=0.01)),
    "dampened": ("SGD", dict(lr=0.1, momentum=0.9, dampening=0.3)),
    "nesterov": ("SGD", dict(lr=0.1, momentum=0.9, nesterov=True)),
    "adam": ("Adam", dict(lr=0.01)), "adam, decayed": ("Adam", dict(lr=0.01, betas=(0.8, 0.99), weight_decay=0.1)),
    "adamw": ("AdamW", dict(lr=0.01, weight_decay=0.1)),
}
SCHEDULES = {"step": ("StepLR", dict(step_size=2, gamma=0.5)), "cosine": ("CosineAnnealingLR", dict(T_max=6, eta_min=0.001))}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_as_pytorch(name, schedule):
    torch = pytest.importorskip("torch")
    kind, keywords = OPTIMIZERS[name]
    draw = np.random.default_rng(2)
    first = [draw.normal(size=(130, 150)).astype(np.float32), draw.normal(size=7).astype(np.float32)]  # chunks, and one chunk
    ours, theirs = [nn.Parameter(each) for each in first], [torch.nn.Parameter(torch.from_numpy(each.copy())) for each in first]
    mine, other = getattr(nn, kind)(ours, **keywords), getattr(torch.optim, kind)(theirs, **keywords)
    kind, keywords = SCHEDULES[schedule]
    plans = getattr(nn, kind)(mine, **keywords), getattr(torch.optim.lr_scheduler, kind)(other, **keywords)
    for _ in range(5):
        for parameter, tensor in zip(ours, theirs):
            parameter.grad = draw.normal(size=parameter.shape).astype(np.float32)
            tensor.grad = torch.from_numpy(parameter.grad.copy())
        mine.step()
        other.step()
        for plan in plans:
            plan.step()
        assert mine.lr == pytest.approx(other.param_groups[0]["lr"])
        for parameter, tensor in zip(ours, theirs):
            np.testing.assert_allclose(parameter.data, tensor.detach().numpy(), rtol=1e-5, atol=1e-6)


FUNCTIONS = {
    "linear": (((4, 6), (5, 6), (5,)), {}), "layer_norm": (((3, 4), (4,), (4,)), {}),
    "group_norm": (((2, 6, 5), (6,), (6,)), {}), "mse_loss": (((4, 3), (4, 3)), {}),
    "binary_cross_entropy_with_logits": (((4, 3), (4, 3), (4, 3)), dict(reduction="sum")),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_as_pytorch(name):
    torch = pytest.importorskip("torch")
    shapes, keywords = FUNCTIONS[name]
    draw = np.random.default_rng(1)
    arrays: list = [draw.random(shape, np.float32) for shape in shapes]
    tensors: list = list(map(torch.from_numpy, arrays))
    if name in ("layer_norm", "group_norm"):
        for values in (arrays, tensors):
            values.insert(1, 3 if name == "group_norm" else (4,))
    made = getattr(nn.functional, name)(*arrays, **keywords)
    np.testing.assert_allclose(made, getattr(torch.nn.functional, name)(*tensors, **keywords).numpy(), rtol=1e-5, atol=1e-6)


def test_functions_have_pytorchs_names():
    assert all(callable(getattr(nn.functional, name)) for name in nn.functional.__all__)
    torch = pytest.importorskip("torch")
    own = {"min_pool1d", "min_pool2d", "min_pool3d"}
    assert all(hasattr(torch.nn.functional, name) or hasattr(torch, name) for name in nn.functional.__all__ if name not in own)


def test_dropout():
    x = np.ones((200, 50), np.float32)
    made = nn.functional.dropout(x, 0.25, rng=rng())
    assert set(np.unique(made)) == {0, np.float32(1 / 0.75)} and 0.22 < (made == 0).mean() < 0.28
    assert nn.functional.dropout(x, 0.25, training=False) is x
    channels = nn.functional.dropout2d(np.ones((20, 30, 4, 5), np.float32), 0.5, rng=rng())
    assert (channels == channels[..., :1, :1]).all() and 0.4 < (channels == 0).mean() < 0.6
    layer = nn.Dropout(0.5, rng=rng())
    y = layer(x)
    np.testing.assert_array_equal(layer.backward(x), y)
    model = nn.Sequential(nn.Dropout(), nn.Dropout2d())
    made = []
    for _ in range(2):
        nn.reseed(model, rng())
        made.append(model(x[:, :, None]))
    np.testing.assert_array_equal(*made)
    for p in (-0.1, 1, 1.5):
        with pytest.raises(ValueError, match="p must be at least 0 and below 1"):
            nn.Dropout(p)


@pytest.mark.parametrize(("make", "says"), [
    (lambda: nn.Conv2d(3, 4, 3, groups=2), "in_channels must be a multiple of groups, got 3 and 2"),
    (lambda: nn.Conv2d(0, 4, 3), "in_channels"), (lambda: nn.Conv2d(3, 4, 3, rng=0), "rng must be a numpy.random.Generator"),
    (lambda: nn.Conv2d(3, 4, (3, 3, 3)), "kernel_size"), (lambda: nn.Conv2d(3, 4, 3, layout="NCW"), "layout"),
    (lambda: nn.GroupNorm(3, 4), "num_channels must be a multiple of num_groups"),
    (lambda: nn.GELU("exact"), "approximate must be"), (lambda: nn.SGD([], 0.1), "at least one parameter"),
    (lambda: nn.SGD([nn.Parameter(np.ones(2))], -1), "lr must not be negative"),
    (lambda: nn.SGD([nn.Parameter(np.ones(2))], 1, nesterov=True), "nesterov needs momentum"),
    (lambda: nn.Adam([nn.Parameter(np.ones(2))], betas=(0.9, 1.0)), "betas must be"),
    (lambda: nn.CrossEntropyLoss(reduction="some"), "reduction"),
    (lambda: nn.MSELoss()(np.ones(3), np.ones(4)), r"target must have the input's shape \(3,\), got \(4,\)"),
    (lambda: nn.CrossEntropyLoss()(np.ones((2, 3)), np.array([0, 3])), "target must be at least 0 and below 3"),
    (lambda: nn.BatchNorm2d(3)(np.ones((2, 3, 4))), r"input must have 4 axes, got shape \(2, 3, 4\)"),
    (lambda: nn.BatchNorm2d(3)(np.ones((2, 4, 4, 4), np.float32)), r"\(4,\)"),
    (lambda: nn.Linear(3, 4)(np.ones((2, 5), np.float32)), r"in_features.*\(2, 5\) and \(4, 3\)"),
    (lambda: nn.init.fans((3,)), "at least two axes"), (lambda: nn.init.gain("swish"), "nonlinearity must be one of"),
])
def test_bad_input(make, says):
    with pytest.raises((ValueError, TypeError), match=says):
        make()


@pytest.mark.parametrize(("name", "deviation"), [
    ("kaiming_uniform_", (2 / 288) ** 0.5), ("kaiming_normal_", (2 / 288) ** 0.5), ("lecun_normal_", (1 / 288) ** 0.5),
    ("xavier_uniform_", (2 / (288 + 576)) ** 0.5), ("xavier_normal_", (2 / (288 + 576)) ** 0.5),
])
def test_initialisers(name, deviation):
    parameter = nn.Parameter(np.zeros((64, 32, 3, 3), np.float32))
    getattr(nn.init, name)(parameter, rng=rng())
    assert abs(parameter.data.mean()) < deviation / 50 and parameter.data.std() == pytest.approx(deviation, rel=0.02)
    first = parameter.data.copy()
    getattr(nn.init, name)(parameter, rng=rng())
    np.testing.assert_array_equal(parameter.data, first)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_native_steps(name, dtype, monkeypatch):
    """The same bits for any number of threads, NumPy's but for rounding; nothing beside the array is written."""
    kind, keywords = OPTIMIZERS[name]
    draw = np.random.default_rng(3)
    for size in (1, 7, 4096, 40_003):
        first, gradients = draw.standard_normal(size).astype(dtype), draw.standard_normal((3, size)).astype(dtype)
        made = []
        for threads in (1, 2, 3, None):
            if threads is None:
                monkeypatch.setattr(nn.optimizers.operands, "native_module", lambda: None)
            parameter = nn.Parameter(first)
            around = np.full(size + 2, np.nan, dtype)
            around[1:-1] = first
            parameter._data = around[1:-1]
            optimizer = getattr(nn, kind)([parameter], **keywords)
            with fastconv.config(num_threads=threads or 1):
                for gradient in gradients:
                    parameter.grad = gradient
                    optimizer.step()
            assert np.isnan(around[[0, -1]]).all()
            made.append(parameter.data.copy())
        monkeypatch.undo()
        assert made[0].tobytes() == made[1].tobytes() == made[2].tobytes()
        np.testing.assert_allclose(made[0], made[3], rtol=1e-5 if dtype == "float32" else 1e-13, atol=1e-7)


def test_native_steps_check_their_arrays():
    module = native.isa_module(native.runnable_isas()[-1]) if fastconv.backends()["cython"] is None else None
    if module is None:
        pytest.skip("needs the native kernels")
    update, x = native.runtime().update, np.ones(8, np.float32)
    for arguments, says in (
        (("sgd", x, np.ones(7, np.float32)), "gradient must have shape"), (("sgd", x, np.ones(8)), "gradient must be"),
        (("sgd", np.ones(16, np.float32)[::2], x), "values must be contiguous"), (("adam", x, x, x), "adam takes other arrays"),
        (("sgd", x, x, x, x), "sgd takes other arrays"), (("lion", x, x), "rule"),
        (("sgd", np.broadcast_to(np.float32(1), 8), x), "writ"),
    ):
        with pytest.raises(ValueError, match=says):
            update(module, *arguments, rate=0.1)


def test_parameters_in_front_are_trained_whether_the_input_is_wanted_or_not():
    """Of nested containers, with layers without parameters in between."""
    draw = rng()
    model = nn.Sequential(
        nn.Tanh(), nn.Conv2d(2, 3, 3, padding=1, rng=draw), nn.ReLU(), nn.Residual(nn.Sequential(
            nn.Conv2d(3, 3, 1, rng=draw), nn.Tanh(), nn.Conv2d(3, 3, 1, rng=draw))), nn.Concat(nn.Conv2d(3, 2, 1, rng=draw),
                                                                                               nn.Identity()),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(20, 4, rng=draw))
    x = draw.standard_normal((3, 2, 4, 4)).astype(np.float32)
    found = []
    for needs_input in (True, False):
        model.zero_grad()
        gradient = model.backward(np.ones_like(model(x)), needs_input)
        assert (gradient is not None) == needs_input
        found.append([parameter.grad for parameter in model.parameters()])
    for name, *both in zip((name for name, _ in model.named_parameters()), *found):
        assert both[0].any(), name
        np.testing.assert_array_equal(*both, err_msg=name)


@pytest.mark.parametrize("function", [nn.ReLU, nn.ReLU6])
def test_batch_norm_applies_the_activation_behind_it(function, rng):
    """In training, in one pass; what comes out is what both give one after the other."""
    x, g = (rng.normal(1, 3, (4, 5, 6, 7)).astype(np.float32) for _ in range(2))
    both = nn.Sequential(nn.BatchNorm2d(5), function())
    norm, alone = nn.BatchNorm2d(5), function()
    for each in (both[0], norm):
        each.weight.data, each.bias.data = [1, -2, 3, 0.5, 4], [0, 1, 2, -1, 3]
    assert both[0].applies(both[1]) and not both[0].applies(nn.Tanh())
    made, expected = both(x), alone(norm(x))
    np.testing.assert_array_equal(made, expected)
    np.testing.assert_allclose(both.backward(g), norm.backward(alone.backward(g)), rtol=1e-4, atol=1e-5)
    for mine, other in zip(both.parameters(), norm.parameters()):
        np.testing.assert_allclose(mine.grad, other.grad, rtol=1e-4, atol=1e-4)
    with nn.observed(both) as seen:
        both(x)
    assert [run.place for run in seen] == ["0", "1"]
    both[0].eval()
    assert not both[0].applies(both[1])
