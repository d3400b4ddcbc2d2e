"""Training: batches, steps, validation, and what must survive an accident."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .. import storage
from ..arguments import integer
from ..batches import Augmentation, batches
from ..terminal import Advance, progress
from .activation import reseed
from .loss import Loss
from .module import Module
from .optimizers import Optimizer, StepLR

PREVIOUS, NEXT = ".previous", ".next"  # in the names of the checkpoint before the latest, and of one that is being written


@dataclasses.dataclass
class Epoch:
    """What one pass over the data came to; accuracies are shares, None where targets are no classes."""

    epoch: int
    lr: float
    loss: float
    accuracy: float | None
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float


@dataclasses.dataclass
class History:
    """Of a training.

    Attributes:
        epochs: those that are complete.
        best: the number of the one whose weights the model has.
        stopped: why it ended before its last epoch, or None.
    """

    epochs: list[Epoch] = dataclasses.field(default_factory=list)
    best: int | None = None
    stopped: str | None = None

    def __getitem__(self, name: str) -> list[Any]:
        """A column, such as "loss"."""
        return [getattr(epoch, name) for epoch in self.epochs]

    def record(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def of(cls, record: dict[str, Any]) -> History:
        return cls([Epoch(**epoch) for epoch in record["epochs"]], record["best"], record["stopped"])


class Diverged(ArithmeticError):
    """A loss that is not finite."""


def fit(
    model: Module, loss: Loss, optimizer: Optimizer, images: Any, targets: Any, *, epochs: int, batch_size: int = 32,
    validation: tuple[Any, Any] | None = None, seed: int = 0, augment: Augmentation | None = None,
    schedule: StepLR | None = None, patience: int | None = None, checkpoint: str | os.PathLike[str] | None = None,
    show: bool = True, after_epoch: Callable[[History], None] | None = None,
) -> History:
    """Train a model; at the end it has the best weights, and is in eval mode.

    Every epoch's order, augmentation and dropout follow from `seed` and its number alone: an interrupted training that goes on
    from its checkpoint ends with the same bits as one that was not. They do not depend on the number of threads.

    Args:
        images, targets: arrays with as many elements along their first axes; targets as `loss` takes them.
        epochs: passes over the data.
        validation: (images, targets) that are not trained with. The best epoch is that of the least loss with them; without
            them the last one.
        augment: makes of a batch of images and a generator another batch.
        schedule: its `step` is called after each epoch.
        patience: stop after so many epochs without a better validation loss; None: never.
        checkpoint: an .npz file, written after each epoch; where it exists, training goes on from it. The one before stays
            beside it, and is taken where the latest is damaged.
        show: a progress bar on the terminal.
        after_epoch: called with what there is.

    Returns:
        The history. A loss that is not finite ends the training (`stopped` says where) with the weights of the best epoch
        before; so does Ctrl-C.

    Raises:
        ValueError: arrays of different lengths; a checkpoint of another model.
    """
    training = _Training(model, loss, optimizer, schedule, integer("batch_size", batch_size, 1), integer("seed", seed, 0),
                         augment)
    data = _pair("images, targets", images, targets)
    checked = None if validation is None else _pair("validation", *validation)
    if checkpoint is not None:
        training.resume(checkpoint)
    history = training.history
    with _ended_early(history), progress(show, stays=True) as advance:
        for number in range(len(history.epochs), epochs):
            training.epoch(number, epochs, data, checked, advance)
            if checkpoint is not None:
                training.save(checkpoint)
            if after_epoch is not None:
                after_epoch(history)
            if patience is not None and history.best is not None and number - history.best >= patience:
                history.stopped = f"no better validation loss in {patience} epochs"
                break
    training.restore()
    return history


def evaluate(model: Module, loss: Loss, images: Any, targets: Any, batch_size: int = 256) -> tuple[float, float | None]:
    """(mean loss, accuracy) in eval mode; the model stays in its mode."""
    was = model.training
    model.eval()
    total = _Total()
    for x, t in batches(*_pair("images, targets", images, targets), batch_size):
        y = model(x)
        total.add(float(loss(y, t)), y, t)
    model.train(was)
    return total.loss, total.accuracy


class _Total:
    """Of the batches so far."""

    def __init__(self) -> None:
        self.count, self.sum, self.right, self.classes = 0, 0.0, 0, True

    def add(self, loss: float, output: np.ndarray, target: np.ndarray) -> None:
        self.count += len(target)
        self.sum += loss * len(target)
        self.classes = self.classes and target.dtype.kind in "iu" and output.ndim == target.ndim + 1
        if self.classes:
            self.right += int((output.argmax(1) == target).sum()) if target.ndim == 1 else 0

    @property
    def loss(self) -> float:
        return self.sum / max(self.count, 1)

    @property
    def accuracy(self) -> float | None:
        return self.right / max(self.count, 1) if self.classes else None

    def __str__(self) -> str:
        return f"loss {self.loss:.4f}" + ("" if self.accuracy is None else f", accuracy {self.accuracy:.2%}")


class _Training:
    """A model, and all that changes while it is trained."""

    def __init__(self, model: Module, loss: Loss, optimizer: Optimizer, schedule: StepLR | None, batch_size: int, seed: int,
                 augment: Augmentation | None) -> None:
        self.model, self.loss, self.optimizer, self.schedule = model, loss, optimizer, schedule
        self.batch_size, self.seed, self.augment = batch_size, seed, augment
        self.history = History()
        self.best = model.state_dict()
        self.least = math.inf

    def epoch(self, number: int, epochs: int, data: tuple[np.ndarray, np.ndarray],
              validation: tuple[np.ndarray, np.ndarray] | None, advance: Advance) -> None:
        begin, lr = time.monotonic(), self.optimizer.lr
        order, augmented, dropped = (np.random.default_rng([self.seed, number, kind]) for kind in range(3))
        reseed(self.model, dropped)
        self.model.train()
        total = _Total()
        for x, t in batches(*data, self.batch_size, order):
            x = x if self.augment is None else self.augment(x, augmented)
            y, value = self.step(x, t)
            total.add(value, y, t)
            advance((number + total.count / len(data[0])) / epochs, f"epoch {number + 1}/{epochs}: {total}")
            if not math.isfinite(value):
                raise Diverged(f"the loss was {value} in epoch {number}, batch {-(-total.count // self.batch_size) - 1}")
        checked, share = (None, None) if validation is None else evaluate(self.model, self.loss, *validation)
        self.history.epochs.append(Epoch(number, lr, total.loss, total.accuracy, checked, share, time.monotonic() - begin))
        if self.schedule is not None:
            self.schedule.step()
        if checked is None or checked < self.least:
            self.least = math.inf if checked is None else checked
            self.best, self.history.best = self.model.state_dict(), number

    def step(self, x: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, float]:
        """Forward, loss, backward, update."""
        y = self.model(x)
        value = float(self.loss(y, t))
        if math.isfinite(value):
            self.optimizer.zero_grad()
            self.model.backward(self.loss.backward(), needs_input=False)
            self.optimizer.step()
        return y, value

    def restore(self) -> None:
        self.model.load_state_dict(self.best)
        self.model.eval()

    # ---- checkpoints

    def save(self, path: str | os.PathLike[str]) -> None:
        arrays = {f"model.{name}": array for name, array in self.model.state_dict().items()}
        arrays.update({f"best.{name}": array for name, array in self.best.items()})
        arrays.update({f"optimizer.{name}": array for name, array in self.optimizer.state_dict().items()})
        more = {"history": self.history.record(), "least": self.least,
                "schedule": None if self.schedule is None else self.schedule.steps}
        arrays["more"] = np.frombuffer(json.dumps(more).encode(), np.uint8)
        try:
            storage.save(_beside(path, NEXT), arrays)
            if os.path.exists(path):
                os.replace(path, _beside(path, PREVIOUS))
            os.replace(_beside(path, NEXT), path)
        except OSError as error:  # a full disk is no reason to lose what has been learnt
            warnings.warn(f"no checkpoint after epoch {self.history.epochs[-1].epoch}: {error}", RuntimeWarning, stacklevel=3)

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Go on from a checkpoint, or from the one before it; from the beginning where there is none."""
        for each in (path, _beside(path, PREVIOUS)):
            if os.path.exists(each):
                try:
                    arrays = storage.load(each)
                    break
                except ValueError as error:
                    warnings.warn(f"{error}; the checkpoint before it is taken", RuntimeWarning, stacklevel=3)
        else:
            return
        parts: dict[str, dict[str, np.ndarray]] = {"model": {}, "best": {}, "optimizer": {}, "more": {}}
        for name, array in arrays.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = array
        more = json.loads(parts["more"][""].tobytes())
        self.model.load_state_dict(parts["model"])
        self.optimizer.load_state_dict(parts["optimizer"])
        self.best, self.history, self.least = parts["best"], History.of(more["history"]), more["least"]
        self.history.stopped = None
        if self.schedule is not None and more["schedule"] is not None:
            self.schedule.steps = more["schedule"]


def _beside(path: str | os.PathLike[str], word: str) -> str:
    root, ending = os.path.splitext(os.fspath(path))
    return root + word + ending


@contextlib.contextmanager
def _ended_early(history: History) -> Iterator[None]:
    try:
        yield
    except Diverged as error:
        history.stopped = str(error)
        warnings.warn(f"training stopped: {error}", RuntimeWarning, stacklevel=4)
    except KeyboardInterrupt:
        history.stopped = f"interrupted in epoch {len(history.epochs)}"


def _pair(name: str, images: Any, targets: Any) -> tuple[np.ndarray, np.ndarray]:
    x, t = np.asarray(images), np.asarray(targets)
    if x.ndim == 0 or t.ndim == 0 or len(x) != len(t) or len(x) == 0:
        raise ValueError(f"{name} must have as many elements along their first axes, one at least, got shapes {x.shape} and "
                         f"{t.shape}")
    return x, t
