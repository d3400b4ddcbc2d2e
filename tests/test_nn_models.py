"""The networks of `fastconv.nn.models`: parameter counts of the literature, and torchvision's outputs for its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastconv import nn
from fastconv.nn import models

PUBLISHED = {
    "lenet5": 61_706, "alexnet": 61_100_840, "vgg11": 132_863_336, "vgg16": 138_357_544, "googlenet": 6_624_904,
    "resnet18": 11_689_512, "resnet50": 25_557_032, "mobilenet_v2": 3_504_872, "convnext_tiny": 28_589_128, "unet": 31_030_658,
}
ARGUMENTS = {"googlenet": dict(init_weights=False, aux_logits=False)}


def torchvision() -> Any:
    """The package, whose compiled operators may not fit this torch: networks need none of them."""
    library = pytest.importorskip("torch").library
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "register_fake", lambda name, *_, **__: lambda function: function)
        return pytest.importorskip("torchvision")


class Zeros(np.random.Generator):
    """Draws nothing: first values of a hundred million weights take a second."""

    def uniform(self, *_: object, **__: object) -> np.ndarray:
        return np.zeros(_[2], np.float32)


def model(name: str, **arguments) -> nn.Sequential:
    return getattr(models, name)(**arguments, rng=Zeros(np.random.PCG64(0)))


def test_all_of_them():
    assert set(models.__all__) == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts(name):
    assert sum(parameter.size for parameter in model(name).parameters()) == PUBLISHED[name]


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name not in ("lenet5", "unet", "vgg11")])
def test_as_torchvision(name):
    torch, vision = pytest.importorskip("torch"), torchvision()
    theirs = getattr(vision.models, name)(weights=None, **ARGUMENTS.get(name, {})).eval()
    with torch.no_grad():
        for key, value in theirs.state_dict().items():
            if "running_var" in key or "layer_scale" in key:
                value.uniform_(0.2, 1)
            elif "running_mean" in key:
                value.normal_(0, 0.1)
    ours = model(name).load_state_dict(theirs.state_dict()).eval()
    x = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype(np.float32)
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(x)).numpy()
    for _ in range(2):
        np.testing.assert_allclose(ours(x), expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


SMALL = {"lenet5": (2, 1, 32, 32), "resnet18": (2, 3, 64, 64), "mobilenet_v2": (2, 3, 64, 64), "googlenet": (2, 3, 64, 64)}


@pytest.mark.parametrize("name", SMALL)
def test_they_train(name):
    """Two images are learnt by heart."""
    rng = np.random.default_rng(0)
    network = getattr(models, name)(5, rng=rng)
    for dropout in (module for module in network.modules() if isinstance(module, nn.Dropout)):
        dropout.p = 0.0
    x, t, loss = rng.standard_normal(SMALL[name]).astype(np.float32), np.array([1, 3]), nn.CrossEntropyLoss()
    optimizer = nn.SGD(network.parameters(), 0.1 if name == "lenet5" else 0.02, momentum=0.9)
    values = []
    for _ in range(8):
        values.append(float(loss(network(x), t)))
        optimizer.zero_grad()
        assert network.backward(loss.backward(), needs_input=False) is None
        optimizer.step()
    assert values[-1] < 0.5 * values[0]


def test_unet_keeps_the_size():
    network = models.unet(2, in_channels=3, rng=Zeros(np.random.PCG64(0))).eval()
    assert network(np.ones((1, 3, 48, 32), np.float32)).shape == (1, 2, 48, 32)
