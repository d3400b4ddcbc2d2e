"""Pictures of layers, of a sliding filter and of results; errors, and what is imported."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from viz_cases import PICTURES, an_image, history, network, shown, texts

import fastconv
from fastconv import nn, viz

pytest.importorskip("matplotlib")


# ---- layers


def test_filters():
    rng = np.random.default_rng(0)
    one = nn.Conv2d(1, 5, 3, rng=rng)
    figure = viz.filters(one)
    for number in range(5):
        np.testing.assert_allclose(shown(figure, number), one.weight.data[number, 0])
        norm = figure.axes[number].images[0].norm
        assert -norm.vmin == norm.vmax == np.abs(one.weight.data).max()
    colour = rng.standard_normal((4, 3, 5, 5))
    for number, tile in enumerate(viz.filters(colour).axes):
        each = colour[number].transpose(1, 2, 0)
        np.testing.assert_allclose(np.asarray(tile.images[0].get_array()), (each - each.min()) / (each.max() - each.min()))
    figure = viz.filters(rng.standard_normal((9, 8, 3, 2)), most=4, inputs=6)
    assert len(figure.axes) == 5  # with the scale
    assert "shown: 4 of 9 output channels, 6 of 8 input channels" in texts(figure)
    weight = rng.standard_normal((1, 6, 3, 2))
    grid = shown(viz.filters(weight), 0)  # two rows of three maps, 8 x 8 for a weight, lines of 3
    assert grid.shape == (2 * 24 + 3, 3 * 16 + 2 * 3)
    for channel in range(6):
        row, column = divmod(channel, 3)
        np.testing.assert_array_equal(grid[row * 27:row * 27 + 24:8, column * 19:column * 19 + 16:8], weight[0, channel])
    assert np.isnan(grid[24:27]).all()
    assert len(viz.filters(nn.Conv1d(1, 3, 5, rng=rng)).axes) == 4


def test_activation_maps_are_the_layers_outputs():
    model, x = network(), an_image()
    with nn.observed(model) as seen:
        model(x[None])
    outputs = {each.place: each.output[0] for each in seen}
    figure = viz.activation_maps(model, x, ["relu1", model.pool1], channels=3)
    assert len(figure.axes) == 1 + 3 + 3 + 1 and {"below 0", "above 0"} <= set(texts(figure))
    for number, (place, channel) in enumerate([("relu1", 0), ("relu1", 1), ("relu1", 2), ("pool1", 0), ("pool1", 1)]):
        np.testing.assert_allclose(shown(figure, 1 + number), outputs[place][channel], atol=1e-12)
    written = texts(viz.activation_maps(model, x))
    assert "BatchNorm2d, 4 × 8 × 8" in written and "both.1" in written and "fc" not in written
    deep = nn.Sequential(*(nn.Identity() if n % 2 else nn.Conv2d(1, 1, 1) for n in range(60)))
    figure = viz.activation_maps(deep, x)
    assert len(figure.axes) == 14 and "12 of 60 layers; layers= names others" in texts(figure)


# ---- the sliding filter


def test_sliding_computes_the_correlation():
    rng = np.random.default_rng(0)
    x, k = rng.standard_normal((7, 6)), rng.standard_normal((3, 3))
    for padding, mode in ((0, "valid"), (1, "same")):
        expected = fastconv.correlate(x, k, mode)
        steps = list(viz.sliding(x, k, padding=padding))
        assert [(step.row, step.column) for step in steps] == list(np.ndindex(*expected.shape))
        np.testing.assert_allclose([step.value for step in steps], expected.ravel(), atol=1e-13)
        np.testing.assert_allclose([step.products.sum() for step in steps], expected.ravel(), atol=1e-13)
    strided = fastconv.correlate(x, k, "same")[::2, ::3]
    steps = list(viz.sliding(x, k, (2, 3), 1))
    np.testing.assert_allclose([step.value for step in steps], strided.ravel(), atol=1e-13)
    np.testing.assert_allclose([(step.window * k).sum() for step in steps], strided.ravel(), atol=1e-13)


def test_the_animation_has_a_frame_for_each_value(tmp_path):
    image = pytest.importorskip("PIL.Image")
    x, k = np.arange(20).reshape(4, 5), np.ones((2, 2)) / 4
    path = viz.slide(x, k, tmp_path / "made.gif", stride=(1, 2), padding=(0, 1), seconds=0.1)
    assert path == str(tmp_path / "made.gif")
    frames = []
    with image.open(path) as found:
        assert found.n_frames == 3 * 3
        for number in range(found.n_frames):
            found.seek(number)
            frames.append(np.asarray(found.convert("RGB")))
    assert all((one != other).any() for one, other in zip(frames, frames[1:]))
    assert (frames[0][0, 0] == 255).all()
    empty = [((frame > 220) & (frame < 240)).all(2).sum() for frame in frames]  # of the output, in pixels
    assert all(less < more for more, less in zip(empty, empty[1:])) and empty[-1] < empty[0] / 2


# ---- results


def test_confusion_counts():
    targets, predictions = [0, 0, 1, 2, 2, 2], np.array([0, 1, 1, 0, 2, 2], np.uint8)
    expected = [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    np.testing.assert_array_equal(viz.confusion_counts(targets, predictions), expected)
    named = viz.confusion_counts(targets, predictions, list("abcd"))
    assert named.shape == (4, 4) and named[:3, :3].tolist() == expected and named.sum() == 6
    figure = viz.confusion_matrix(targets, predictions, list("abc"))
    axes = figure.axes[0]
    written = {(round(text.get_position()[1]), round(text.get_position()[0])): int(text.get_text()) for text in axes.texts}
    assert written == {(0, 0): 1, (0, 1): 1, (1, 1): 1, (2, 0): 1, (2, 2): 2}
    assert [label.get_text() for label in axes.get_yticklabels()] == list("abc")
    assert "4 of 6 right (66.7%); colours are shares of a row" in texts(figure)


def test_loss_curves():
    figure = viz.loss_curves(history())
    lines = [{line.get_label(): line.get_xydata().tolist() for line in axes.lines} for axes in figure.axes]
    assert lines[0]["training"] == [[1, 2], [2, 1], [3, 2 / 3], [4, 0.5]]
    assert lines[0]["validation"] == [[1, 2.5], [2, 1.5], [3, 0.5], [4, 1.5]] and lines[0]["best"] == [[3, 0.5]]
    np.testing.assert_allclose(lines[1]["training"], [[1, 0.5], [2, 0.6], [3, 0.7], [4, 0.8]])
    assert "best epoch 3 of 4 (the dots): validation loss 0.5, accuracy 60.0%" in texts(figure)
    figure = viz.loss_curves(history(validated=False, classes=False))
    assert [line.get_label() for line in figure.axes[0].lines] == ["training", "best"] and len(figure.axes) == 1


def test_misread():
    images = np.random.default_rng(0).random((6, 1, 5, 4))
    targets, predictions = [0, 1, 2, 0, 1, 2], [0, 2, 2, 1, 0, 2]
    figure = viz.misread(images, targets, predictions, ["ant", "bee", "cat"])
    assert "3 of 6 misread" in texts(figure) and len(figure.axes) == 3
    for number, (index, read, real) in enumerate([(1, "cat", "bee"), (3, "bee", "ant"), (4, "ant", "bee")]):
        np.testing.assert_allclose(shown(figure, number), images[index, 0])
        assert texts(figure)[3 + 2 * number:5 + 2 * number] == [f"read {read}", f"is {real}"]
    scores = np.zeros((6, 3))
    scores[[1, 3, 4], [2, 1, 0]] = 1, 3, 2
    figure = viz.misread(images, targets, predictions, scores=scores, most=2)
    for number, index in enumerate((3, 4)):
        np.testing.assert_allclose(shown(figure, number), images[index, 0])
    assert "shown: 2, the surest first" in texts(figure)
    assert "0 of 6 misread" in texts(viz.misread(images, targets, targets))


NAMES = ["a price in $ and $$ that is long", "b", "a name of _some_ length"]
RESULTS = {
    "confusion_matrix": lambda: viz.confusion_matrix([0, 1, 2, 2], [0, 1, 2, 1], NAMES),
    "many classes": lambda: viz.confusion_matrix(np.arange(50), np.arange(50)[::-1]),
    "loss_curves": lambda: viz.loss_curves(history()),
    "misread": lambda: viz.misread(np.ones((3, 3, 6, 9)), [0, 1, 2], [2, 0, 2], NAMES),
    "wide": lambda: viz.filters(np.ones((70, 2, 1, 9))),
    **{name: lambda draw=draw: draw(network(), an_image()) for name, draw in PICTURES.items()},
}


@pytest.mark.parametrize("name", RESULTS)
def test_all_text_is_on_the_sheet(name):
    figure = RESULTS[name]()
    figure.canvas.draw()
    ticks = [label for axes in figure.axes if axes.images and axes.axison
             for label in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    sheet = figure.bbox
    for text in (*figure.texts, *(text for axes in figure.axes for text in axes.texts), *ticks):
        if text.get_text():
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= sheet.x1 and box.y1 <= sheet.y1, text.get_text()


# ---- errors, and what is imported


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda m, x: viz.saliency(m, x, 3), ValueError, "target must be below the model's 3 classes, got 3"),
    (lambda m, x: viz.saliency(m, x, 1.0), TypeError, "target must be an integer"),
    (lambda m, x: viz.saliency(m, np.zeros(5)), ValueError, r"image must be one image .* got shape \(5,\)"),
    (lambda m, x: viz.saliency(m, x.astype(complex)), TypeError, "image must be of real numbers"),
    (lambda m, x: viz.saliency(m.conv1, x), ValueError, "model must give one score per class"),
    (lambda m, x: viz.saliency("model", x), TypeError, "model must be a fastconv.nn Module, got 'model'"),
    (lambda m, x: viz.grad_cam(m, x, "conv9"), ValueError, "layer must be the place .*'conv1', .* got 'conv9'"),
    (lambda m, x: viz.grad_cam(m, x, nn.ReLU()), ValueError, "layer must be one of the model's"),
    (lambda m, x: viz.grad_cam(m, x, "fc"), ValueError, r"layer must have maps .* got 'fc'"),
    (lambda m, x: viz.deconvolution(m, x, "conv1", 4), ValueError, "channel must be below the layer's 4, got 4"),
    (lambda m, x: viz.deconvolution(m, x, "conv1", 0, (8, 0)), ValueError, r"position must be within .*\(8, 8\), got \(8, 0\)"),
    (lambda m, x: viz.deconvolution(m, x, "conv1", 0, (1,)), ValueError, "position must have 2 entries"),
    (lambda m, x: viz.receptive_field(m, x, "pool1", (4, 0)), ValueError, "position must be within"),
    (lambda m, x: viz.responds_to(m, "fc", 3, (1, 8, 8)), ValueError, "channel must be below"),
    (lambda m, x: viz.responds_to(m, "fc", 0, (1, 8)), ValueError, "image_shape must be"),
    (lambda m, x: viz.responds_to(m, "fc", [], (1, 8, 8)), ValueError, "channel must be at least one"),
    (lambda m, x: viz.responds_to(m, "fc", 0, (1, 8, 8), rate="fast"), ValueError, "rate must be a finite number"),
    (lambda m, x: viz.receptive_box(m, (8, 8), "conv1", (0, 0)), ValueError, r"image_size must be \(C, H, W\)"),
    (lambda m, x: viz.activation_maps(m, x, ["fc"]), ValueError, "layers must be .* got 'fc'"),
    (lambda m, x: viz.activation_maps(m, x, channels=0), ValueError, "channels must be positive, got 0"),
    (lambda m, x: viz.filters(m.fc), ValueError, "layer must have a weight"),
    (lambda m, x: viz.filters(m.relu1), TypeError, "layer must be a convolution or its weight"),
    (lambda m, x: viz.slide(x, np.ones((3, 3))), ValueError, "image must have shape"),
    (lambda m, x: viz.slide(x[0], np.ones(3)), ValueError, "kernel must have shape"),
    (lambda m, x: viz.slide(np.ones((30, 30)), np.ones((3, 3))), ValueError, "at most 400 values, got 784"),
    (lambda m, x: viz.slide(x[0], np.ones((3, 3)), seconds=0), ValueError, "seconds must be positive, got 0"),
    (lambda m, x: viz.confusion_matrix([0, 1], [0]), ValueError, "predictions must be as many as targets"),
    (lambda m, x: viz.confusion_matrix([0, 1.5], [0, 1]), ValueError, "targets must be the numbers of classes"),
    (lambda m, x: viz.confusion_matrix([0, -1], [0, 1]), ValueError, "targets must be the numbers of classes"),
    (lambda m, x: viz.confusion_matrix([0, 2], [0, 1], ["a", "b"]), ValueError, "names must have one for each of 3"),
    (lambda m, x: viz.misread(x[0], [0, 1], [1, 1]), ValueError, "images must be"),
    (lambda m, x: viz.misread(x[0, :2, None], [0, 1], [1, 1], scores=[1, 2]), ValueError, "scores must be"),
    (lambda m, x: viz.loss_curves([1, 2]), TypeError, "history must be what nn.fit returns"),
    (lambda m, x: viz.loss_curves(nn.History()), ValueError, "history must have at least one epoch"),
])
def test_errors_name_the_argument(call, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        call(network(), an_image())
    assert not list(tmp_path.iterdir())


def test_without_matplotlib(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    model, x = network(), an_image()
    assert viz.saliency_map(model, x)[0].shape == (8, 8)
    for call in (*(lambda each=each: each(model, x) for each in PICTURES.values()), lambda: viz.slide(x[0], np.ones((2, 2))),
                 lambda: viz.confusion_matrix([0, 1], [0, 1]), lambda: viz.loss_curves(history()),
                 lambda: viz.misread(x, [0], [1])):
        with pytest.raises(fastconv.Unavailable, match="pip install matplotlib"):
            call()


def test_nothing_of_pyplot_is_touched():
    code = ("import sys, numpy\nfrom fastconv import viz\nassert 'matplotlib' not in sys.modules\n"
            "viz.confusion_matrix([0, 1], [0, 1]); viz.filters(numpy.ones((2, 1, 3, 3)))\n"
            "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
