"""The summary of a model, and what `observed` sees."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv import nn
from fastconv.nn import models


def test_lenet():
    found = models.lenet5(rng=np.random.default_rng(0)).summary((1, 1, 32, 32))
    rows = {row.place: row for row in found.rows}
    assert [row.place for row in found.rows] == ["conv1", "act1", "pool1", "conv2", "act2", "pool2", "flatten", "fc1", "act3",
                                                "dropout", "fc2", "act4", "fc3"]
    assert rows["conv1"].output == (1, 6, 28, 28) and rows["conv1"].field == (5, 5)
    assert rows["conv1"].multiply_adds == 6 * 28 * 28 * 25 and rows["fc1"].multiply_adds == 120 * 400
    assert rows["pool1"].field == (6, 6) and rows["conv2"].field == (14, 14) and rows["pool2"].field == (16, 16)
    assert rows["fc1"].field is None and rows["fc3"].output == (1, 10)
    assert found.parameters == 61_706 and rows["conv2"].parameters == 16 * 6 * 25 + 16
    assert rows["conv1"].share > 0 and rows["act1"].share is None and found.seconds > 0
    lines = str(found).splitlines()
    assert len(lines) == 15 and lines[1].split()[:2] == ["conv1", "Conv2d"] and "61,706" in lines[-1]


@pytest.mark.parametrize(("name", "shape", "place", "field", "multiply_adds"), [
    ("resnet18", (1, 3, 224, 224), "layer4.1.conv2", (435, 435), 1_814_073_344),  # the literature's 435; 1.8 G
    ("vgg16", (1, 3, 224, 224), "features.29", (196, 196), 15_470_264_320),  # 15.5 G
    ("mobilenet_v2", (1, 3, 224, 224), "features.18.2", (491, 491), 300_774_272),  # 300 M
])
def test_figures_of_the_literature(name, shape, place, field, multiply_adds):
    found = nn.summary(getattr(models, name)(rng=np.random.default_rng(0)), shape)
    assert found.multiply_adds == multiply_adds
    assert next(row.field for row in found.rows if row.place == place) == field


def test_branches_and_transposed_convolutions():
    rng = np.random.default_rng(0)
    model = nn.Sequential({
        "side": nn.Concat(nn.Conv2d(1, 2, 3, padding=1, rng=rng), nn.Conv2d(1, 2, 7, padding=3, rng=rng)),
        "down": nn.MaxPool2d(2), "up": nn.ConvTranspose2d(4, 1, 2, 2, rng=rng), "last": nn.Conv2d(1, 1, 3, rng=rng)})
    found = nn.summary(model, (2, 1, 8, 8))
    assert {row.place: row.field for row in found.rows} == {
        "side.0": (3, 3), "side.1": (7, 7), "down": (8, 8), "up": (8, 8), "last": (10, 10)}
    assert next(row.multiply_adds for row in found.rows if row.place == "up") == 2 * 4 * 4 * 4 * 1 * 4


def test_what_was_looked_at_is_as_before():
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, rng=rng), nn.BatchNorm2d(2), nn.ReLU()).eval()
    x = rng.standard_normal((1, 1, 5, 5)).astype(np.float32)
    before = model(x)
    with nn.observed(model) as seen:
        made = model(x)
    assert [each.place for each in seen] == ["0", "1", "2"] and seen[-1].output is made
    np.testing.assert_array_equal(seen[0].input, x)
    np.testing.assert_array_equal(model(x), before)
    assert len(seen) == 3 and not any("forward" in vars(module) for module in model.modules())
    model.train()
    nn.summary(model, (1, 1, 6, 6))
    assert model.training
    assert model.backward(np.ones_like(model(x)[..., :3, :3])) is not None
