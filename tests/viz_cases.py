"""A small network with some of everything, pictures of it, and what pictures show."""

from __future__ import annotations

import numpy as np

from fastconv import nn, viz
from fastconv.nn.fit import Epoch


def network(seed=0, dtype=np.float64):
    """Some of everything, in eval mode: batch norm whose statistics are not those of a batch, dropout, branches."""
    rng = np.random.default_rng(seed)
    body = nn.Sequential({"conv": nn.Conv2d(4, 4, 3, padding=1, rng=rng), "norm": nn.BatchNorm2d(4), "relu": nn.ReLU()})
    model = nn.Sequential({
        "conv1": nn.Conv2d(1, 4, 3, padding=1, rng=rng), "norm1": nn.BatchNorm2d(4), "relu1": nn.ReLU(),
        "pool1": nn.MaxPool2d(2), "block": nn.Residual(body),
        "both": nn.Concat(nn.Conv2d(4, 2, 1, rng=rng), nn.Conv2d(4, 3, 3, padding=1, rng=rng)),
        "relu2": nn.ReLU(), "flatten": nn.Flatten(), "drop": nn.Dropout(0.5, rng=rng), "fc": nn.Linear(5 * 16, 3, rng=rng)})
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.data, module.running_var.data = rng.standard_normal(4), rng.uniform(0.5, 2, 4)
            module.weight.data, module.bias.data = rng.standard_normal(4), rng.standard_normal(4)
    return model.to(dtype).eval()


def an_image(seed=0):
    return np.random.default_rng(seed).standard_normal((1, 8, 8))


def history(*, validated=True, classes=True):
    epochs = [Epoch(n, 0.1, 2 / (n + 1), 0.5 + n / 10 if classes else None, abs(n - 2) + 0.5 if validated else None,
                    0.4 + n / 10 if classes and validated else None, 1.0) for n in range(4)]
    return nn.History(epochs, best=2 if validated else 3)


def texts(figure):
    return [text.get_text() for text in (*figure.texts, *(text for axes in figure.axes for text in axes.texts))]


def shown(figure, number):
    """What the tile of this number shows."""
    return np.ma.getdata(figure.axes[number].images[0].get_array())


PICTURES = {
    "filters": lambda model, x: viz.filters(model.conv1),
    "activation_maps": lambda model, x: viz.activation_maps(model, x),
    "receptive_field": lambda model, x: viz.receptive_field(model, x, "block", (1, 2)),
    "responds_to": lambda model, x: viz.responds_to(model, "fc", [0, 2], (1, 8, 8), steps=3),
    "deconvolution": lambda model, x: viz.deconvolution(model, x, "relu2", 1),
    "saliency": lambda model, x: viz.saliency(model, x),
    "grad_cam": lambda model, x: viz.grad_cam(model, x, "relu2"),
}
