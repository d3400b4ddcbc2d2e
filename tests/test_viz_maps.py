"""The arrays behind pictures of networks: passes that leave the network as it was, and what they find."""

from __future__ import annotations

import numpy as np
import pytest
from viz_cases import PICTURES, an_image, network, shown, texts

import fastconv
from fastconv import nn, viz
from fastconv.nn import models
from fastconv.viz import passes

pytest.importorskip("matplotlib")


def derivative(function, x, step=1e-6):
    made = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        more, less = x.copy(), x.copy()
        more[place] += step
        less[place] -= step
        made[place] = (function(more) - function(less)) / (2 * step)
    return made


# ---- passes: the twin is the model in eval mode, and the model stays as it was


def state_of(model):
    """All that a module holds, by the identity and the bytes of it."""
    found = {}
    for place, module in model.named_modules():
        for name, value in vars(module).items():
            key = f"{place}.{name}"
            if isinstance(value, nn.Buffer):
                grad = getattr(value, "grad", None)
                found[key] = (id(value.data), value.data.tobytes(), value.data.flags.writeable, value.version,
                              None if grad is None else (id(grad), grad.tobytes()))
            elif isinstance(value, np.random.Generator):
                found[key] = str(value.bit_generator.state)
            else:
                found[key] = id(value)
    return found


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("mode", ["train", "eval", "eval, not run yet"])
def test_the_model_stays_as_it_was(picture, mode):
    model, x = network(dtype=np.float32), an_image()
    if mode == "train":
        model.train()
        model.backward(np.ones_like(model(np.float32(x[None]))))
    if mode != "eval, not run yet":
        model(np.float32(x[None]))  # what it keeps: for backward, or a program
    before = state_of(model)
    figure = PICTURES[picture](model, x)
    assert state_of(model) == before
    assert type(figure).__name__ == "Figure" and figure.texts[0].get_text()
    if mode == "train":
        assert model.backward(np.ones((1, 3), np.float32)).shape == (1, 1, 8, 8)


def test_a_twin_computes_what_the_model_does_in_eval_mode():
    model, x = network(), an_image()
    expected = model(x[None])
    for each in (model, model.train()):
        np.testing.assert_allclose(passes.twin(each)(x[None]), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="read-only"):
        passes.twin(model).conv1.weight.data[...] = 0


@pytest.mark.parametrize("layer", ["norm1", "pool1", "block.body.norm", "block", "both.1", "relu2", "fc"])
def test_gradients_of_any_layer(layer):
    model, x = network(), an_image()
    part = passes.up_to(model, layer)
    made = part(x[None])
    with nn.observed(model) as seen:
        model(x[None])
    expected = [each.output for each in seen if each.place == layer]
    if expected:  # of layers without layers
        np.testing.assert_allclose(made, expected[0], rtol=1e-12)
    wanted = np.random.default_rng(1).standard_normal(made.shape)
    np.testing.assert_allclose(passes.back(part, wanted)[0],
                               derivative(lambda each: (passes.up_to(model, layer)(each[None]) * wanted).sum(), x), atol=1e-7)


def test_batch_norm_without_running_statistics():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, rng=np.random.default_rng(0)), nn.BatchNorm2d(2, track_running_stats=False),
                          nn.Flatten()).to(np.float64).eval()
    x = an_image()
    found, chosen = viz.saliency_map(model, x)
    np.testing.assert_allclose(found, np.abs(derivative(lambda each: model(each[None])[0, chosen], x))[0], atol=1e-6)


# ---- what a unit reads


def backward_support(model, layer, position, shape):
    """Of `model.backward` from one unit, over random images; the box around it."""
    rng, read = np.random.default_rng(0), np.zeros(shape[1:], bool)
    part = passes.up_to(model, layer)
    for _ in range(60):
        made = part(rng.standard_normal((1, *shape)))
        seed = np.zeros_like(made)
        np.moveaxis(seed[0], 0, -1)[position] = rng.standard_normal(made.shape[1])
        read |= part.backward(seed)[0].any(0)
    rows, columns = np.flatnonzero(read.any(1)), np.flatnonzero(read.any(0))
    return viz.Box(rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)


def windows():
    rng = np.random.default_rng(0)
    conv, up = (lambda *a, **k: nn.Conv2d(*a, **k, rng=rng)), nn.ConvTranspose2d
    return {
        "one convolution": nn.Sequential(conv(2, 3, 3)),
        "strides, padding, dilation": nn.Sequential(conv(2, 3, 3, 2, 1), nn.ReLU(), conv(3, 2, (3, 2), 1, 2, dilation=2)),
        "pooling": nn.Sequential(conv(2, 3, 3, padding="same"), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
                                 conv(3, 3, 3)),
        "other pooling": nn.Sequential(nn.AvgPool2d(2), conv(2, 3, 3), nn.LeakyReLU(), nn.LPPool2d(2, 2, 1),
                                       nn.MinPool2d(2, 1)),
        "one side": nn.Sequential(conv(2, 3, 3, padding=((2, 0), (0, 2))), nn.Tanh(), conv(3, 3, 3)),
        "branches": nn.Sequential(nn.Residual(nn.Sequential(conv(2, 2, 3, padding=1), nn.ReLU())),
                                  nn.Concat(conv(2, 1, 1), conv(2, 1, 5, padding=2))),
        "upward": nn.Sequential(conv(2, 3, 3, 2), up(3, 2, 3, 2, rng=rng), conv(2, 2, 2)),
        "groups": nn.Sequential(conv(2, 4, 3, groups=2), nn.GroupNorm(4, 4), conv(4, 4, 3, groups=4)),
    }


@pytest.mark.parametrize("position", [(0, 0), (2, 1), (-1, -1)])
@pytest.mark.parametrize("name", windows())
def test_the_receptive_field_is_the_support_of_the_gradient(name, position):
    model = windows()[name].to(np.float64).eval()
    layer, shape = str(len(model) - 1), (2, 14, 13)
    found = viz.receptive_box(model, shape, layer, position)
    if name == "groups":  # group norm over a whole image counts as acting on single elements
        assert found == viz.receptive_box(nn.Sequential(*(model[n] for n in (0, 2))), shape, "1", position)
        return
    assert found == backward_support(model, layer, position, shape)


def test_the_receptive_field_is_as_large_as_the_summary_says():
    model, shape = models.lenet5(rng=np.random.default_rng(0)), (1, 32, 32)
    sizes = {row.place: row.field for row in nn.summary(model, (1, *shape)).rows}
    for place, size in sizes.items():
        if size is not None and len(size) == 2:
            box = viz.receptive_box(model, shape, place, (2, 2))
            assert (box.bottom - box.top, box.right - box.left) == size, place


def test_the_receptive_field_of_what_sees_all():
    assert viz.receptive_box(network(), (1, 8, 8), "fc", ()) == (0, 8, 0, 8)
    model = nn.Sequential(nn.Conv2d(1, 1, 3), nn.GlobalAvgPool())
    assert viz.receptive_box(model, (1, 9, 7), "1", (0, 0)) == (0, 9, 0, 7)


def test_the_receptive_field_has_no_rounding_errors():
    """What a fast algorithm adds around it is none of it."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(*(nn.Conv2d(channels, 64, 5, padding=2, rng=rng) for channels in (3, 64, 64)))
    assert viz.receptive_box(model, (3, 40, 40), "2", (20, 20)) == (14, 27, 14, 27)


def test_the_receptive_field_is_drawn_where_it_is():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, 2, rng=np.random.default_rng(0)))
    figure = viz.receptive_field(model, np.arange(81.0).reshape(9, 9), "0", (1, -1))
    box, = (patch for patch in figure.axes[0].patches if patch.get_label() == "receptive field")
    assert box.get_bbox().bounds == (5.5, 1.5, 3, 3)
    np.testing.assert_allclose(shown(figure, 2), np.arange(81.0).reshape(9, 9)[2:5, 6:9] / 80)
    assert "3 × 3 pixels of 9 × 9: rows 2 to 4, columns 6 to 8" in texts(figure)


# ---- what a class depends on


@pytest.mark.parametrize("target", [None, 0, 2])
def test_saliency_is_the_derivative(target):
    model, x = network(), an_image()
    found, chosen = viz.saliency_map(model, x, target)
    assert chosen == (model(x[None])[0].argmax() if target is None else target)
    np.testing.assert_allclose(found, np.abs(derivative(lambda each: model(each[None])[0, chosen], x)).max(0), atol=1e-7)
    figure = viz.saliency(model, x, target, names=["a", "b", "c"])
    np.testing.assert_array_equal(np.ma.getdata(figure.axes[1].images[1].get_array()), found)
    assert f"What “{'abc'[chosen]}” depends on" in texts(figure)


def test_saliency_is_the_largest_over_the_channels():
    weight = np.arange(-6.0, 6).reshape(1, 12)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 1, bias=False)).to(np.float64)
    model[1].weight.data = weight
    np.testing.assert_array_equal(viz.saliency_map(model, np.zeros((3, 2, 2)))[0], np.abs(weight.reshape(3, 2, 2)).max(0))


def test_a_softmax_at_the_end_is_passed_over():
    model, x = network(), an_image()
    ended = nn.Sequential({**dict(model.named_children()), "softmax": nn.Softmax()}).eval()
    for found, expected in ((viz.saliency_map(ended, x), viz.saliency_map(model, x)),
                            (viz.grad_cam_map(ended, x, "relu2"), viz.grad_cam_map(model, x, "relu2"))):
        np.testing.assert_array_equal(found[0], expected[0])


def test_grad_cam_of_known_weights():
    """Score c is Σ w[c, k]·mean(A_k): α_k = w[c, k] / pixels."""
    model = nn.Sequential({"conv": nn.Conv2d(1, 2, 1), "pool": nn.GlobalAvgPool(), "flatten": nn.Flatten(),
                           "fc": nn.Linear(2, 2, bias=False)}).to(np.float64)
    model.conv.weight.data, model.conv.bias.data = np.reshape([1, -2], (2, 1, 1, 1)), [0, 0.5]
    model.fc.weight.data = [[3, 1], [-1, 2]]
    x = an_image()[0]
    for target, (first, second) in enumerate(((3, 1), (-1, 2))):
        found, _ = viz.grad_cam_map(model, x, "conv", target)
        np.testing.assert_allclose(found, np.maximum(first * x + second * (0.5 - 2 * x), 0) / 64, atol=1e-15)
        assert (found == 0).any() and (found > 0).any()
    figure = viz.grad_cam(model, x, model.conv, 1)
    np.testing.assert_allclose(np.ma.getdata(figure.axes[1].images[1].get_array()), found)


def test_grad_cam_inside_a_branch():
    """The gradient of the layer's own output, not of the branches' sum before it."""
    model, x = network(), an_image()
    found, chosen = viz.grad_cam_map(model, x, "block.body.conv")
    with nn.observed(model) as seen:
        model(x[None])
    maps = next(each.output for each in seen if each.place == "block.body.conv")
    inside = next(each.input for each in seen if each.place == "block.body.conv")

    def score(shift):
        y = model.block.body.relu(model.block.body.norm(maps + shift[None])) + inside
        return model.fc(model.flatten(model.relu2(model.both(y))))[0, chosen]
    alpha = derivative(score, np.zeros(maps.shape[1:])).mean((1, 2))
    np.testing.assert_allclose(found, np.maximum(np.einsum("k,khw", alpha, maps[0]), 0), atol=1e-8)


# ---- what a channel answers to


def test_deconvolution_of_one_layer_is_the_transposed_convolution():
    model, x = nn.Sequential(nn.Conv2d(2, 3, 3, 2, 1, rng=np.random.default_rng(0))).to(np.float64), np.random.rand(2, 7, 9)
    made, weight = model(x[None]), model[0].weight.data
    only = np.zeros_like(made)
    only[0, 1] = made[0, 1]
    expected = fastconv.conv_transpose2d(only, weight, stride=2, padding=1)[0]
    np.testing.assert_allclose(viz.deconvolved(model, x, "0", 1, "all"), expected, atol=1e-14)
    for position in ("strongest", (2, 3), (-1, 0)):
        place = np.unravel_index(made[0, 1].argmax(), made.shape[2:]) if position == "strongest" else position
        unit = np.zeros_like(made)
        unit[(0, 1, *place)] = made[(0, 1, *place)]
        expected = fastconv.conv_transpose2d(unit, weight, stride=2, padding=1)[0]
        np.testing.assert_allclose(viz.deconvolved(model, x, "0", 1, position), expected, atol=1e-14)


def test_deconvolution_goes_back_through_pooling_and_relu():
    """Unpooling where the maxima were; a ReLU of the signal, whatever the input's sign was."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, rng=rng), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 1, rng=rng))
    model.to(np.float64)
    x = rng.standard_normal((1, 8, 8))
    hidden = model[1](model[0](x[None]))
    pooled, where = fastconv.max_pool2d(hidden, 2, return_indices=True)
    made = model[3](pooled)
    made[:, 1] = 0
    signal = fastconv.conv_transpose2d(made, model[3].weight.data)
    signal = np.maximum(fastconv.max_unpool2d(signal, where, 2), 0)
    assert (signal > 0).any() and (fastconv.conv_transpose2d(made, model[3].weight.data) < 0).any()
    expected = fastconv.conv_transpose2d(signal, model[0].weight.data, padding=1)[0]
    found = viz.deconvolved(model, x, "3", 0, "all")
    np.testing.assert_allclose(found, expected, atol=1e-14)
    np.testing.assert_allclose(shown(viz.deconvolution(model, x, "3", 0, "all"), 1), found[0])


def test_gradient_ascent_on_a_linear_layer():
    """Without decay and blur each step adds rate·w / rms(w)."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, rng=np.random.default_rng(0))).to(np.float64)
    found = viz.maximised(model, "1", [1, 0], (1, 3, 4), steps=5, rate=0.5, decay=0, blur=0, seed=3)
    noise = 0.1 * np.random.default_rng(3).standard_normal((1, 3, 4))
    for each, channel in zip(found, (1, 0)):
        w = model[1].weight.data[channel].reshape(1, 3, 4)
        np.testing.assert_allclose(each, noise + 5 * 0.5 * w / np.sqrt(np.square(w).mean()), atol=1e-12)
    smooth = viz.maximised(model, "1", [1], (1, 3, 4), steps=8, blur=2)
    rough = viz.maximised(model, "1", [1], (1, 3, 4), steps=8, blur=0)
    assert np.abs(np.diff(smooth)).sum() < np.abs(np.diff(rough)).sum()


def test_images_found_by_gradient_ascent_are_responded_to():
    model = network(1)
    layer, channels = "both", [0, 3]
    found = viz.maximised(model, layer, channels, (1, 8, 8), steps=20)
    np.testing.assert_array_equal(found, viz.maximised(model, layer, channels, (1, 8, 8), steps=20))
    assert (found != viz.maximised(model, layer, channels, (1, 8, 8), steps=20, seed=1)).any()
    part = passes.up_to(model, layer)
    others = part(np.random.default_rng(0).standard_normal((50, 1, 8, 8)) * np.square(found).mean() ** 0.5).mean((2, 3))
    for number, channel in enumerate(channels):
        assert part(found)[number, channel].mean() > others[:, channel].max()
    figure = viz.responds_to(model, layer, channels, (1, 8, 8), steps=20)
    for number in range(2):
        low, high = found[number].min(), found[number].max()
        np.testing.assert_allclose(shown(figure, number), (found[number][0] - low) / (high - low))
