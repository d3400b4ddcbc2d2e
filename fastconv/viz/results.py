"""Pictures of a training and of what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arguments import integer
from ..errors import clipped, shown
from ..nn.fit import History
from .canvas import BLUE, GAP, INK, LINE, ORANGE, SMALL, SOFT, Sheet, columns_for, picture, size_within

_LONGEST = 24  # of a class's name, in characters


def _classes(name: str, values: Any) -> np.ndarray:
    found = np.asarray(values)
    if found.ndim != 1 or found.dtype.kind not in "iu" or (found.size and found.min() < 0):
        raise ValueError(f"{name} must be the numbers of classes (N,), got shape {found.shape}, {found.dtype.name}: "
                         f"{shown(values)}")
    return found


def _both(targets: Any, predictions: Any) -> tuple[np.ndarray, np.ndarray]:
    first, second = _classes("targets", targets), _classes("predictions", predictions)
    if len(first) != len(second) or not len(first):
        raise ValueError(f"predictions must be as many as targets, one at least, got {len(second)} and {len(first)}")
    return first, second


def _name(number: int, names: Sequence[str] | None) -> str:
    return str(number) if names is None else str(names[number])


def _count(targets: np.ndarray, predictions: np.ndarray, names: Sequence[str] | None) -> int:
    """Of classes."""
    count = 1 + int(max(targets.max(), predictions.max()))
    if names is not None and len(names) < count:
        raise ValueError(f"names must have one for each of {count} classes, got {len(names)}")
    return count if names is None else len(names)


def confusion_counts(targets: Any, predictions: Any, names: Sequence[str] | None = None) -> np.ndarray:
    """How often each class (row) was read as each (column): int64, (classes, classes).

    Raises:
        ValueError: arrays that are no classes, or not as many; fewer names than classes.
    """
    first, second = _both(targets, predictions)
    count = _count(first, second, names)
    return np.bincount(first.astype(np.int64) * count + second, minlength=count * count).reshape(count, count)


def confusion_matrix(targets: Any, predictions: Any, names: Sequence[str] | None = None, *, title: str | None = None) -> Any:
    """How often each class (row) was read as each (column): what is right in blue, what is not in orange.

    Args:
        targets, predictions: numbers of classes (N,).
        names: of the classes; None: their numbers.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: arrays that are no classes, or not as many; fewer names than classes.
        Unavailable: matplotlib is not installed.
    """
    counts = confusion_counts(targets, predictions, names)
    number = len(counts)
    labels = [clipped(_name(each, names), _LONGEST) for each in range(number)]
    cell = float(np.clip(6 / number, 0.16, 0.42))
    longest = max(map(len, labels))
    size, left, turned = number * cell, 0.1 + 0.068 * max(longest, 2), longest * 0.07 > cell
    right = int(np.trace(counts))
    top, below = 0.2, 0.064 * longest if turned else 0.1
    sheet = Sheet(left + size, top + size + below + 0.3, title or "What was read as what",
                  f"{right:,} of {counts.sum():,} right ({right / counts.sum():.1%}); colours are shares of a row")
    axes = sheet.axes(left, top, size, size)
    axes.imshow(_coloured(counts), interpolation="nearest", aspect="auto")
    axes.set(xticks=range(number), yticks=range(number), xticklabels=labels, yticklabels=labels)
    axes.tick_params(length=0, labelsize=min(SMALL, 30 * cell), labelcolor=INK, pad=4)
    axes.tick_params(axis="x", labelrotation=90 if turned else 0)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set_parse_math(False)  # a name with $ is a name
    for spine in axes.spines.values():
        spine.set_visible(False)
    for place in np.arange(1, number) - 0.5:
        axes.axhline(place, color="white", linewidth=3 * cell)
        axes.axvline(place, color="white", linewidth=3 * cell)
    sheet.text(left - 0.06, 0.08, "is", align="right")
    sheet.text(left + size, top + size + below + 0.22, "read as", align="right")
    _written(axes, counts, cell)
    return sheet.figure


def _coloured(counts: np.ndarray) -> np.ndarray:
    """Of each cell its share of the row, as RGB: blue on the diagonal, orange off it (where small shares matter)."""
    from matplotlib.colors import to_rgb

    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    diagonal = np.eye(len(counts), dtype=bool)
    depth = np.where(diagonal, 0.85 * share, np.sqrt(share))[..., None]
    colour = np.where(diagonal[..., None], to_rgb(BLUE), to_rgb(ORANGE))
    return np.where(counts[..., None] > 0, 1 + (colour - 1) * depth, 0.965)


def _written(axes: Any, counts: np.ndarray, cell: float) -> None:
    """The counts, where there is room for them."""
    size = min(SMALL + 0.5, 72 * cell / (0.75 * len(str(counts.max())) + 1.2))
    if size < 4.5:
        return
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for row, column in zip(*np.nonzero(counts)):
        light = share[row, column] > (0.5 if row == column else 0.45)
        axes.text(column, row, str(counts[row, column]), ha="center", va="center_baseline", fontsize=size,
                  color="white" if light else INK)


def loss_curves(history: History, *, title: str | None = None) -> Any:
    """The loss of each epoch, and where there are classes the accuracy, in training and validation; the best epoch is marked.

    Args:
        history: what `nn.fit` returns.

    Returns:
        A matplotlib Figure.

    Raises:
        TypeError, ValueError: no History, or one without epochs.
        Unavailable: matplotlib is not installed.
    """
    if not isinstance(history, History):
        raise TypeError(f"history must be what nn.fit returns, got {shown(history)}")
    if not history.epochs:
        raise ValueError("history must have at least one epoch, got none")
    panels = [("loss", history["loss"], history["validation_loss"])]
    if any(value is not None for value in history["accuracy"] + history["validation_accuracy"]):
        panels.append(("accuracy", history["accuracy"], history["validation_accuracy"]))
    width, height, apart = 3.0, 1.9, 1.15
    note = "" if history.stopped is None else f"stopped: {history.stopped}"
    sheet = Sheet(0.35 + len(panels) * (width + apart) - 0.3, height + 0.4, title or "Training, epoch by epoch",
                  _summed_up(history), note)
    for number, (name, trained, checked) in enumerate(panels):
        axes = sheet.axes(0.35 + number * (width + apart), 0.15, width, height)
        _panel(axes, name, history, trained, checked)
    return sheet.figure


def _summed_up(history: History) -> str:
    if history.best is None:
        return f"{len(history.epochs)} epochs"
    best = next(epoch for epoch in history.epochs if epoch.epoch == history.best)
    value, where = (best.loss, "") if best.validation_loss is None else (best.validation_loss, "validation ")
    share = best.accuracy if best.validation_loss is None else best.validation_accuracy
    more = "" if share is None else f", accuracy {share:.1%}"
    which = "best epoch" if best.validation_loss is not None else "epoch"  # without validation the last one is taken
    return f"{which} {history.best + 1} of {len(history.epochs)} (the dots): {where}loss {value:.3g}{more}"


def _panel(axes: Any, name: str, history: History, trained: list[Any], checked: list[Any]) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    epochs = np.array(history["epoch"]) + 1
    ends = []
    for label, values, colour in (("training", trained, SOFT), ("validation", checked, BLUE)):
        y = np.array([np.nan if value is None else value for value in values], float)
        if np.isfinite(y).any():
            axes.plot(epochs, y, color=colour, linewidth=1.6, label=label, solid_capstyle="round",
                      marker="o" if len(epochs) == 1 else "", markersize=3)
            last = np.flatnonzero(np.isfinite(y))[-1]
            ends.append([y[last], label, colour])
            if history.best is not None and (label == "validation" or not any(v is not None for v in checked)):
                at = epochs == history.best + 1
                axes.plot(epochs[at], y[at], "o", color=ORANGE, markersize=5.5, markeredgecolor="white", label="best",
                          clip_on=False, zorder=5)
    axes.set_title(name, loc="left", fontsize=SMALL + 1, color=INK, pad=6)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if name == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    else:
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]) if axes.get_ylim()[0] < 0 else 0)
    axes.set_xlabel("epoch", fontsize=SMALL, color=SOFT, labelpad=3)
    axes.tick_params(length=0, labelsize=SMALL, labelcolor=SOFT, pad=4)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color=LINE)
    _labelled(axes, ends)


def _labelled(axes: Any, ends: list[list[Any]]) -> None:
    """The lines' names, where they end, apart from each other."""
    low, high = axes.get_ylim()
    least = 0.09 * (high - low)
    ends.sort(key=lambda end: end[0])
    places = [end[0] for end in ends]
    if len(places) == 2 and places[1] - places[0] < least:
        middle = sum(places) / 2
        places = [middle - least / 2, middle + least / 2]
        shift = max(0.0, low + 0.02 * (high - low) - places[0])
        places = [place + shift for place in places]
    for place, (_, label, colour) in zip(places, ends):
        axes.annotate(label, (1.0, place), xycoords=("axes fraction", "data"), xytext=(5, 0), textcoords="offset points",
                      fontsize=SMALL, color=colour, va="center", annotation_clip=False)


def misread(images: Any, targets: Any, predictions: Any, names: Sequence[str] | None = None, *, scores: Any = None,
            most: int = 24, title: str | None = None) -> Any:
    """The images that were read wrongly, each with what it is and what it was read as.

    Args:
        images: (N, C, H, W) or (N, H, W).
        targets, predictions: numbers of classes (N,).
        names: of the classes; None: their numbers.
        scores: (N, classes); where they are given, the surest mistakes come first, otherwise they stay in order.
        most: at most so many are shown; the title says how many there are.

    Returns:
        A matplotlib Figure.

    Raises:
        ValueError: arrays of different lengths; fewer names than classes.
        Unavailable: matplotlib is not installed.
    """
    x = np.asarray(images)
    first, second = _both(targets, predictions)
    _count(first, second, names)
    if x.ndim not in (3, 4) or len(x) != len(first):
        raise ValueError(f"images must be (N, C, H, W) or (N, H, W) with N = {len(first)}, got shape {x.shape}")
    wrong = np.flatnonzero(first != second)
    chosen = _surest(wrong, second, scores, len(first))[:integer("most", most, 1)]
    words = [[clipped(f"{word} {_name(int(each[index]), names)}", _LONGEST) for word, each in (("read", second), ("is", first))]
             for index in chosen]
    columns = columns_for(max(len(chosen), 4), 8)
    across, down = size_within(x.shape[-2:], 0.95)
    lines = 1 if all(len(" ".join(pair)) * 0.075 < across for pair in words) else 2
    step = down + 0.2 + 0.14 * lines
    wide = across if lines == 1 else max(across, 0.068 * max(len(text) for pair in words for text in pair))
    rows = max(1, -(-len(chosen) // columns))
    note = f"shown: {len(chosen)}{', the surest first' if scores is not None else ''}" if len(chosen) < len(wrong) else ""
    sheet = Sheet(columns * (wide + GAP) - GAP, rows * step - 0.1 if len(chosen) else 0.2,
                  title or f"{len(wrong):,} of {len(x):,} misread",
                  "what it was read as, and what it is" if len(chosen) else "nothing to show", note)
    for number, index in enumerate(chosen):
        row, column = divmod(number, columns)
        left, top = column * (wide + GAP), row * step
        seen, colours = picture(x[index], "images")
        sheet.tile(left, top, across, down, seen, **colours)
        read, real = words[number]
        sheet.text(left, top + down + 0.11, read, colour=ORANGE)
        if lines == 1:
            sheet.text(left + across, top + down + 0.11, real, align="right", colour=INK)
        else:
            sheet.text(left, top + down + 0.25, real, colour=INK)
    return sheet.figure


def _surest(wrong: np.ndarray, predictions: np.ndarray, scores: Any, count: int) -> np.ndarray:
    if scores is None:
        return wrong
    found = np.asarray(scores)
    if found.ndim != 2 or len(found) != count or found.shape[1] <= predictions.max():
        raise ValueError(f"scores must be ({count}, classes), got shape {found.shape}")
    sure = np.exp(found - found.max(1, keepdims=True))
    sure /= sure.sum(1, keepdims=True)
    return wrong[np.argsort(-sure[wrong, predictions[wrong]], kind="stable")]
