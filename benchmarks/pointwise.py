"""Activations, batch normalisation, softmax and cross entropy against PyTorch: 20 calls as training makes them, and large ones,
each verified before it is timed.

    python benchmarks/pointwise.py [--rounds 7] [--threads 2] [--only PART OF A LABEL]

PyTorch's gradients get what its forward pass leaves for them: outputs, statistics of the batch, log softmax; ours the input,
and the statistics. Some 50,000 elements of every result, or all, ours and PyTorch's, are compared with float64 ones first. How
it is timed, and what the columns say: see `_paired.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from _paired import ROUNDOFF, run

import fastconv
from fastconv import activations

Arrays = tuple[np.ndarray, ...]
CHECKED = 50_000


def _at(shape: tuple[int, ...]) -> np.ndarray:
    """Places that are compared, odd steps apart so that all lanes are among them."""
    size = int(np.prod(shape))
    return np.arange(0, size, max(1, size // CHECKED) | 1)


def _far(result: np.ndarray, exact: np.ndarray, allowed: np.ndarray | float) -> str | None:
    return None if result.shape == exact.shape and (np.abs(result - exact) <= allowed).all() else "wrong"


class Activation(NamedTuple):
    name: str
    shape: tuple[int, ...]
    gradient: bool = False
    large: bool = False
    takes_out = True

    @property
    def label(self) -> tuple[str, ...]:
        return self.name + " gradient" * self.gradient, "x".join(map(str, self.shape)), ""

    def operands(self) -> Arrays:
        rng = np.random.default_rng(1)
        return tuple(rng.standard_normal(self.shape, np.float32) for _ in range(1 + self.gradient))

    def ours(self, operands: Arrays, out: np.ndarray | None = None) -> np.ndarray:
        """Of gradients the first operand is the output's."""
        return getattr(fastconv, self.name + "_input" * self.gradient)(*operands, out=out)

    def theirs(self, torch: Any, operands: Arrays) -> Callable[[], Any]:
        given, x = [torch.from_numpy(array) for array in operands], torch.from_numpy(operands[-1])
        if not self.gradient:
            function = torch if self.name in ("sigmoid", "tanh") else torch.nn.functional
            return functools.partial(getattr(function, self.name), *given)
        if self.name in ("sigmoid", "tanh"):
            given[1] = getattr(torch, self.name)(x)
        more = dict(relu=(0,), leaky_relu=(0.01, False)).get(self.name, ())
        name = "threshold" if self.name == "relu" else self.name
        return functools.partial(getattr(torch.ops.aten, name + "_backward"), *given, *more)

    def of_torch(self, result: Any) -> np.ndarray:
        return result.numpy()

    def wrong(self, operands: Arrays, result: np.ndarray) -> str | None:
        """Within 64 units in the last place of what is multiplied: PyTorch's gelu is that far off."""
        at = _at(self.shape)
        given = [array.reshape(-1)[at].astype(np.float64) for array in operands]
        parameter, size = (self.name, 0.01), np.abs(given[0]) + np.abs(given[-1])
        if self.gradient:
            exact = activations.gradient(parameter, *given)
        else:
            exact = given[0].copy()
            activations.apply(parameter, exact)
        return _far(result.reshape(-1)[at], exact, 64 * ROUNDOFF * (1 + size))


class BatchNorm(NamedTuple):
    kind: str  # training, evaluation, gradient
    shape: tuple[int, ...]  # (N, C, H, W)
    last: bool = False
    large: bool = False
    takes_out = True

    @property
    def label(self) -> tuple[str, ...]:
        return "batch norm " + self.kind, "x".join(map(str, self.shape)), "last" if self.last else ""

    def operands(self) -> Arrays:
        """The input, (N, H, W, C) if channels_last; after the gradient of the output, if there is one."""
        rng = np.random.default_rng(2)
        made = tuple(rng.standard_normal(self.shape, np.float32) for _ in range(1 + (self.kind == "gradient")))
        return tuple(np.ascontiguousarray(np.moveaxis(x, 1, -1)) for x in made) if self.last else made

    def _channels(self) -> Arrays:
        """Running statistics, weight, bias."""
        rng = np.random.default_rng(3)
        return tuple(rng.uniform(0.5, 2, self.shape[1]).astype(np.float32) for _ in range(4))

    def ours(self, operands: Arrays, out: np.ndarray | None = None) -> np.ndarray:
        (mean, variance, weight, bias), layout = _channels(self), "channels_last" if self.last else "channels_first"
        if self.kind == "gradient":
            saved = _saved(self)
            return fastconv.batch_norm_backward(*operands, weight=weight, training=True, layout=layout, out=out, **saved)[0]
        training = self.kind == "training"
        return fastconv.batch_norm(*operands, mean, variance, weight, bias, training, layout=layout, out=out)

    def theirs(self, torch: Any, operands: Arrays) -> Callable[[], Any]:
        given = [torch.from_numpy(array) for array in operands]
        given = [x.movedim(-1, 1) for x in given] if self.last else given
        mean, variance, weight, bias = map(torch.from_numpy, _channels(self))
        if self.kind != "gradient":
            training = self.kind == "training"
            return functools.partial(torch.nn.functional.batch_norm, *given, mean, variance, weight, bias, training)
        _, *saved = torch.native_batch_norm(given[1], weight, bias, mean, variance, True, 0.1, 1e-5)
        backward = torch.ops.aten.native_batch_norm_backward
        return functools.partial(backward, *given, weight, mean, variance, *saved, True, 1e-5, [True] * 3)

    def of_torch(self, result: Any) -> np.ndarray:
        found = (result[0] if isinstance(result, tuple) else result).numpy()
        return np.moveaxis(found, 1, -1) if self.last else found

    def wrong(self, operands: Arrays, result: np.ndarray) -> str | None:
        """Two channels."""
        view = operands if self.last else tuple(np.moveaxis(x, 1, -1) for x in operands)
        some = [x[..., :: max(1, self.shape[1] - 1)].astype(np.float64) for x in view]
        x, (mean, variance, weight, bias) = some[-1], (c[:: max(1, self.shape[1] - 1)].astype(float) for c in _channels(self))
        axes = (0, 1, 2)
        if self.kind != "evaluation":
            mean, variance = x.mean(axes), x.var(axes)
        scale = weight / np.sqrt(variance + 1e-5)
        exact = (x - mean) * scale + bias
        if self.kind == "gradient":
            g, normal = some[0], (x - mean) / np.sqrt(variance + 1e-5)
            exact = scale * (g - g.mean(axes) - normal * (g * normal).mean(axes))
        found = result if self.last else np.moveaxis(result, 1, -1)
        return _far(found[..., :: max(1, self.shape[1] - 1)], exact, 256 * ROUNDOFF * (2 + np.abs(x)) * scale)


# Made once, as PyTorch's are: making them takes as long as a small call.


@functools.cache
def _channels(case: BatchNorm) -> Arrays:
    """Running statistics, weight, bias."""
    rng = np.random.default_rng(3)
    return tuple(rng.uniform(0.5, 2, case.shape[1]).astype(np.float32) for _ in range(4))


@functools.cache
def _targets(case: Rows) -> np.ndarray:
    return np.random.default_rng(5).integers(0, case.shape[1], case.shape[0])


@functools.lru_cache(maxsize=1)
def _saved(case: BatchNorm) -> dict[str, np.ndarray]:
    """What the forward pass leaves for the gradient."""
    layout = "channels_last" if case.last else "channels_first"
    _, mean, inverse = fastconv.batch_norm(case.operands()[1], None, None, training=True, return_stats=True, layout=layout)
    return dict(save_mean=mean, save_invstd=inverse)


class Rows(NamedTuple):
    kind: str  # softmax, log_softmax, cross_entropy
    shape: tuple[int, int]
    gradient: bool = False
    large: bool = False

    @property
    def takes_out(self) -> bool:
        return self.gradient or self.kind != "cross_entropy"

    @property
    def label(self) -> tuple[str, ...]:
        return self.kind.replace("_", " ") + " gradient" * self.gradient, "x".join(map(str, self.shape)), ""

    def operands(self) -> Arrays:
        return np.random.default_rng(4).standard_normal(self.shape, np.float32) * np.float32(3),

    def _targets(self) -> np.ndarray:
        return np.random.default_rng(5).integers(0, self.shape[1], self.shape[0])

    def ours(self, operands: Arrays, out: np.ndarray | None = None) -> np.ndarray:
        if self.kind != "cross_entropy":
            return getattr(fastconv, self.kind)(*operands, out=out)
        if self.gradient:
            return fastconv.cross_entropy_input(1.0, *operands, _targets(self), out=out)
        return np.asarray(fastconv.cross_entropy(*operands, _targets(self)))

    def theirs(self, torch: Any, operands: Arrays) -> Callable[[], Any]:
        x, targets = torch.from_numpy(*operands), torch.from_numpy(_targets(self))
        if self.kind != "cross_entropy":
            return functools.partial(getattr(torch, self.kind), x, -1)
        if not self.gradient:
            return functools.partial(torch.nn.functional.cross_entropy, x, targets)
        logs, one, aten = torch.log_softmax(x, 1), torch.tensor(1.0), torch.ops.aten
        weight = torch.tensor(float(self.shape[0]))

        def backward() -> Any:
            return aten._log_softmax_backward_data(
                aten.nll_loss_backward(one, logs, targets, None, 1, -100, weight), logs, 1, torch.float32)

        return backward

    def of_torch(self, result: Any) -> np.ndarray:
        return result.numpy()

    def wrong(self, operands: Arrays, result: np.ndarray) -> str | None:
        x = operands[0].astype(np.float64)
        x -= x.max(1, keepdims=True)
        logs, targets = x - np.log(np.exp(x).sum(1, keepdims=True)), _targets(self)
        if self.kind != "cross_entropy":
            return _far(result, np.exp(logs) if self.kind == "softmax" else logs, 64 * ROUNDOFF * (1 + np.abs(x)))
        if not self.gradient:
            return _far(result, -logs[np.arange(len(x)), targets].mean(), 1e-5)
        exact = np.exp(logs)
        exact[np.arange(len(x)), targets] -= 1
        return _far(result, exact / len(x), 64 * ROUNDOFF / len(x))


STAGE = (8, 64, 112, 112)
INNER = (8, 96, 56, 56)
LARGE = (48, 64, 112, 112)  # 154 MB
CASES = (
    Activation("relu", STAGE),
    Activation("relu", (1, 64, 112, 112)),
    Activation("relu", STAGE, gradient=True),
    Activation("leaky_relu", (8, 256, 56, 56)),
    Activation("sigmoid", INNER),
    Activation("tanh", INNER),
    Activation("gelu", (8, 197, 3072)),
    Activation("gelu", (8, 197, 3072), gradient=True),
    Activation("silu", INNER),
    Activation("silu", INNER, gradient=True),
    Activation("hardswish", INNER),
    BatchNorm("training", STAGE),
    BatchNorm("training", (8, 64, 56, 56), last=True),
    BatchNorm("evaluation", (8, 256, 56, 56)),
    BatchNorm("gradient", STAGE),
    BatchNorm("gradient", (8, 64, 56, 56), last=True),
    Rows("softmax", (1024, 1000)),
    Rows("log_softmax", (1024, 1000)),
    Rows("cross_entropy", (1024, 1000)),
    Rows("cross_entropy", (1024, 1000), gradient=True),
    Activation("relu", LARGE, large=True),
    Activation("relu", LARGE, gradient=True, large=True),
    Activation("silu", LARGE, large=True),
    Activation("gelu", LARGE, large=True),
    BatchNorm("training", LARGE, large=True),
    BatchNorm("gradient", LARGE, large=True),
)


if __name__ == "__main__":
    run(__doc__, CASES, ("name", "shape", ""), (24, 14, 5))
