"""What training makes small: `loss(input, target)` is a number, `loss.backward()` the gradient of its input."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import losses, pointwise
from ..arguments import integer, one_of
from ..errors import shown
from ..problem import number


class Loss:
    """A loss of what a network gives and what it should give.

    reduction: "mean" (over all elements, or rows), "sum", or "none", which gives a loss for each.
    """

    def __init__(self, reduction: str = "mean") -> None:
        one_of("reduction", reduction, ("mean", "sum", "none"))
        self.reduction = reduction
        self._kept: tuple[Any, ...] | None = None

    def __call__(self, input: Any, target: Any) -> Any:
        """The loss, in the input's dtype."""
        x, t = np.asarray(input), np.asarray(target)
        made = self.forward(x, t)
        self._kept = x, t
        return made

    def forward(self, input: np.ndarray, target: np.ndarray) -> Any:
        raise NotImplementedError

    def gradient(self, input: np.ndarray, target: np.ndarray, grad_output: Any) -> np.ndarray:
        raise NotImplementedError

    def backward(self, grad_output: Any = 1.0) -> np.ndarray:
        """The gradient of the latest input. grad_output: of the loss's shape; by default 1, also without reduction."""
        if self._kept is None:
            raise RuntimeError(f"backward of {type(self).__name__} needs a call before it, one for each")
        (x, t), self._kept = self._kept, None
        return self.gradient(x, t, grad_output)

    def _reduced(self, each: np.ndarray) -> Any:
        if self.reduction == "none":
            return each
        total = each.sum(dtype=np.float64)
        return each.dtype.type(total / each.size if self.reduction == "mean" else total)

    def _shared(self, each: np.ndarray, grad_output: Any) -> np.ndarray:
        factor = np.asarray(grad_output, each.dtype)
        return each * (factor / each.size if self.reduction == "mean" else factor)


class MSELoss(Loss):
    """(input - target)², of arrays of one shape."""

    def forward(self, input: np.ndarray, target: np.ndarray) -> Any:
        _alike(input, target)
        return self._reduced(np.square(input - target.astype(input.dtype, copy=False)))

    def gradient(self, input: np.ndarray, target: np.ndarray, grad_output: Any) -> np.ndarray:
        return self._shared(2 * (input - target.astype(input.dtype, copy=False)), grad_output)


class BCEWithLogitsLoss(Loss):
    """Cross entropy of sigmoid(input) and target, both of one shape; targets are between 0 and 1.

    Args:
        weight: of each element, broadcast; None: 1.
        pos_weight: of positive targets, broadcast; None: 1.
    """

    def __init__(self, weight: Any = None, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(reduction)
        self.weight = None if weight is None else np.asarray(weight)
        self.pos_weight = None if pos_weight is None else np.asarray(pos_weight)

    def forward(self, input: np.ndarray, target: np.ndarray) -> Any:
        _alike(input, target)
        t = target.astype(input.dtype, copy=False)
        softplus = np.maximum(-input, 0) + np.log1p(np.exp(-np.abs(input)))  # log(1 + exp(-x)), without overflow
        each = (1 - t) * input + self._positive(t) * softplus
        return self._reduced(each if self.weight is None else (each * self.weight).astype(each.dtype, copy=False))

    def gradient(self, input: np.ndarray, target: np.ndarray, grad_output: Any) -> np.ndarray:
        t = target.astype(input.dtype, copy=False)
        each = (1 - t) - self._positive(t) * pointwise.sigmoid(-input)
        return self._shared(each if self.weight is None else (each * self.weight).astype(each.dtype, copy=False), grad_output)

    def _positive(self, t: np.ndarray) -> Any:
        """The weight of log(1 + exp(-x))."""
        return 1.0 if self.pos_weight is None else (1 + (self.pos_weight - 1) * t).astype(t.dtype, copy=False)


class CrossEntropyLoss(Loss):
    """-log softmax(input) at the target class: see `fastconv.cross_entropy`.

    Args:
        weight, ignore_index, reduction, label_smoothing: as of that.
    """

    def __init__(self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean",
                 label_smoothing: float = 0.0) -> None:
        super().__init__(reduction)
        self.weight = None if weight is None else np.asarray(weight)
        self.ignore_index = integer("ignore_index", ignore_index, None)
        self.label_smoothing = number("label_smoothing", label_smoothing)

    def _arguments(self) -> tuple[Any, ...]:
        return self.weight, self.ignore_index, self.reduction, self.label_smoothing

    def forward(self, input: np.ndarray, target: np.ndarray) -> Any:
        return losses.cross_entropy(input, target, *self._arguments())

    def gradient(self, input: np.ndarray, target: np.ndarray, grad_output: Any) -> np.ndarray:
        if self.reduction == "none":
            grad_output = np.broadcast_to(np.asarray(grad_output, input.dtype), target.shape)
        return losses.cross_entropy_input(grad_output, input, target, *self._arguments())


def _alike(input: np.ndarray, target: np.ndarray) -> None:
    if input.shape != target.shape:
        raise ValueError(f"target must have the input's shape {shown(input.shape)}, got {shown(target.shape)}")
