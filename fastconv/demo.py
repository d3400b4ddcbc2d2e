"""`fastconv demo`: what a convolutional network does, as pictures that are written and named."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import nn, viz
from .batches import batches, shift
from .errors import Unavailable
from .nn import models
from .pooling import avg_pool2d
from .viz import canvas

SIZE = 32  # of LeNet's images
PIXELS = 28  # of a digit within them, at most
HELD_OUT = 3  # one of so many
BATCH = 64
EDGES = {
    "vertical edges": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], "horizontal edges": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
    "all edges": [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], "blurred": [[1, 2, 1], [2, 4, 2], [1, 2, 1]],
}  # fmt: skip
FOUR = """
. . . . . . . .
. # . . # . . .
. # . . # . . .
. # # # # # . .
. . . . # . . .
. . . . # . . .
. . . . . . . .
"""
VERTICAL = np.array([[-1, 2, -1]] * 3, np.float32)


class Options(NamedTuple):
    """What may be asked of a demo.

    folder: where pictures go. data: an .npz file of other digits. epochs, seed: of the training.
    """

    folder: Path
    data: Path | None = None
    epochs: int = 60
    seed: int = 0


class Digits(NamedTuple):
    """Images (N, 1, 32, 32) between 0 and 1, and what they show."""

    images: np.ndarray
    targets: np.ndarray


def digits(options: Options, say: Callable[[str], None] = print) -> None:
    """LeNet, trained from scratch on handwritten digits, and what it has learnt."""
    train, test = _split(_digits(options.data), options.seed)
    say(f"{len(train.images):,} digits to learn from, {len(test.images):,} held out")
    model, history = _trained(train, options)
    seconds = sum(history["seconds"])
    scores = np.concatenate([model(images) for images, _ in batches(*test, 256)])
    read = scores.argmax(1)
    right = int((read == test.targets).sum())
    say(f"trained for {len(history.epochs)} epochs in {seconds:.1f} s")
    say(f"{right:,} of {len(read):,} held-out digits read correctly: {right / len(read):.2%}")
    names = [str(number) for number in range(int(test.targets.max()) + 1)]
    _write(options.folder, say, {
        "loss": viz.loss_curves(history), "confusion": viz.confusion_matrix(test.targets, read, names),
        "filters": viz.filters(model[0]), "maps": viz.activation_maps(model, test.images[0], _LAYERS),
        "misread": viz.misread(test.images, test.targets, read, names, scores=scores)})
    nn.save(options.folder / "lenet.npz", model.state_dict())
    say(f"wrote {options.folder / 'lenet.npz'}, its weights")


_LAYERS = ("conv1", "act1", "pool1", "conv2", "act2", "pool2")


def maps(options: Options, say: Callable[[str], None] = print) -> None:
    """What each layer of a trained LeNet makes of a digit, and what its decision rests on."""
    train, test = _split(_digits(options.data), options.seed)
    model, _ = _trained(train, options)
    image = test.images[0]
    _write(options.folder, say, {
        "maps": viz.activation_maps(model, image, _LAYERS), "saliency": viz.saliency(model, image),
        "grad_cam": viz.grad_cam(model, image, "conv2"), "deconvolution": viz.deconvolution(model, image, "conv2", 0),
        "responds_to": viz.responds_to(model, "conv2", range(8), image.shape),
        "receptive_field": viz.receptive_field(model, image, "conv2", (4, 5))})


def edges(options: Options, say: Callable[[str], None] = print) -> None:
    """Four filters of 3 x 3 over a photograph."""
    photograph = _photograph()
    layer = nn.Conv2d(1, len(EDGES), 3, padding=1, padding_mode="replicate", bias=False)
    layer.weight.data = [[kernel] for kernel in EDGES.values()]
    say(", ".join(EDGES))
    _write(options.folder, say, {"edges": _filtered(photograph, layer(photograph[None, None])[0])})


def _filtered(photograph: np.ndarray, maps: np.ndarray) -> Any:
    """The photograph, and beside it each filter's map, with the filter's numbers below."""
    across, down = canvas.size_within(photograph.shape, 2.2)
    sheet = canvas.Sheet(5 * (across + canvas.GAP) - canvas.GAP, down + 1.05, "Four filters of 3 × 3 over a photograph",
                         "edges: white is 0, red above, blue below, each map on a scale of its own")
    grey, smooth = {"cmap": "gray", "vmin": 0}, {"interpolation": "antialiased"}  # several pixels fall onto one
    sheet.tile(0, 0, across, down, photograph, vmax=1, **grey, **smooth)
    sheet.text(0, down + 0.14, "photograph")
    for number, (name, values) in enumerate(zip(EDGES, maps), 1):
        left, kernel = number * (across + canvas.GAP), np.array(EDGES[name])
        most = np.percentile(np.abs(values), 99)  # the few strongest edges would leave the others white
        colours = {"cmap": canvas.DIVERGING, "vmin": -most} if kernel.min() < 0 else grey
        sheet.tile(left, 0, across, down, values, vmax=most, **colours, **smooth)
        sheet.text(left, down + 0.14, name)
        pale = 2 * np.abs(kernel).max()  # so that numbers are read on it
        axes = sheet.tile(left, down + 0.3, 0.72, 0.72, kernel, cmap=canvas.DIVERGING, vmin=-pale, vmax=pale)
        for (row, column), value in np.ndenumerate(kernel):
            axes.text(column, row, f"{value}".replace("-", "−"), ha="center", va="center_baseline", fontsize=7,
                      color=canvas.INK, family="DejaVu Sans")
    return sheet.figure


def slide(options: Options, say: Callable[[str], None] = print) -> None:
    """A filter for vertical lines that slides over a drawn four."""
    four = np.array([[letter == "#" for letter in line.split()] for line in FOUR.strip().splitlines()], np.float32)
    options.folder.mkdir(parents=True, exist_ok=True)
    say(f"wrote {viz.slide(four, VERTICAL, options.folder / 'slide.gif')}")


DEMOS = {"edges": edges, "digits": digits, "maps": maps, "slide": slide}


def _trained(train: Digits, options: Options) -> tuple[nn.Sequential, nn.History]:
    model = models.lenet5(int(train.targets.max()) + 1, activation=nn.ReLU, pooling=nn.MaxPool2d, dropout=0.3,
                          rng=np.random.default_rng(options.seed))
    optimizer = nn.AdamW(model.parameters(), 2e-3)
    schedule = nn.CosineAnnealingLR(optimizer, options.epochs)
    history = nn.fit(model, nn.CrossEntropyLoss(), optimizer, *train, epochs=options.epochs, batch_size=BATCH,
                     seed=options.seed, augment=lambda images, rng: shift(images, rng, 3), schedule=schedule)
    return model, history


def _write(folder: Path, say: Callable[[str], None], figures: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=150)
        say(f"wrote {path}")


# ---- data


def _split(given: tuple[Digits, Digits | None], seed: int) -> tuple[Digits, Digits]:
    """What is learnt from and what is held out: a third, unless the data say."""
    whole, test = given
    if test is not None:
        return whole, test
    order = np.random.default_rng(seed).permutation(len(whole.images))
    cut = len(order) - len(order) // HELD_OUT
    first, second = (Digits(whole.images[part], whole.targets[part]) for part in (order[:cut], order[cut:]))
    return first, second


def _digits(path: Path | None) -> tuple[Digits, Digits | None]:
    """(all, None) or (to learn from, held out)."""
    if path is None:
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise Unavailable("scikit-learn, whose digits these are, is not installed: pip install scikit-learn") from None
        found = load_digits()
        return _prepared(found.images, found.target), None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = dict(arrays)
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path} is no .npz file of arrays: {error}") from None
    pairs = [(x, y) for x, y in (("x_train", "y_train"), ("x_test", "y_test"), ("images", "targets"), ("images", "labels"),
                                 ("x", "y"), ("X", "y"), ("data", "target")) if x in found and y in found]
    if not pairs:
        raise ValueError(f"{path} must have arrays images and targets, or x_train, y_train, x_test and y_test, got "
                         f"{', '.join(found) or 'none'}")
    made = [_prepared(found[x], found[y]) for x, y in pairs[:2]]
    return made[0], made[1] if pairs[0][0] == "x_train" and len(made) > 1 else None


def _prepared(images: np.ndarray, targets: np.ndarray) -> Digits:
    """Of (N, H, W), (N, 1, H, W), (N, H, W, 1) or square images as rows: enlarged, smoothed and framed to 32 x 32."""
    x = images.squeeze(1) if images.ndim == 4 and images.shape[1] == 1 else images
    x = x.squeeze(-1) if x.ndim == 4 and x.shape[-1] == 1 else x
    if x.ndim == 2:
        side = round(x.shape[1] ** 0.5)
        x = x.reshape(len(x), side, -1) if side * side == x.shape[1] else x
    t = np.asarray(targets)
    if x.ndim != 3 or max(x.shape[1:]) > SIZE or len(x) != len(t) or t.ndim != 1 or len(x) < HELD_OUT:
        raise ValueError(f"images must be grey, (N, H, W) with at most {SIZE} x {SIZE} pixels, and as many as the targets "
                         f"(N,), got shapes {images.shape} and {t.shape}")
    if t.min() < 0 or (t != t.astype(np.int64)).any():
        raise ValueError("targets must be classes: integers from 0 on")
    x = x.astype(np.float32) / np.float32(max(x.max(), 1e-6))
    factor = max(1, PIXELS // max(x.shape[1:]))
    if factor > 1:
        x = avg_pool2d(x.repeat(factor, 1).repeat(factor, 2)[:, None], 3, 1, 1)[:, 0]
    frame = [((SIZE - size) // 2, SIZE - size - (SIZE - size) // 2) for size in x.shape[1:]]
    return Digits(np.pad(x, ((0, 0), *frame))[:, None], t.astype(np.int64))


def _photograph() -> np.ndarray:
    """matplotlib's sample, in shades of grey from 0 to 1."""
    try:
        from matplotlib import image
        from matplotlib.cbook import get_sample_data
    except ImportError:
        raise Unavailable("matplotlib is not installed: pip install matplotlib") from None
    picture = image.imread(str(get_sample_data("grace_hopper.jpg", asfileobj=False)))
    return (picture[..., :3] @ np.array([0.299, 0.587, 0.114]) / 255).astype(np.float32)
