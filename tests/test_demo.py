"""`fastconv demo`: what it prints, what it writes, and which data it takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_cli import fastconv

from fastconv import demo

pytest.importorskip("matplotlib")


def stripes(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Digits for those who have none: 0 lies, 1 stands, in noise."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, number)
    images = rng.integers(0, 60, (number, 8, 8))
    images[targets == 0, 3:5] += 190
    images[targets == 1, :, 3:5] += 190
    return images.astype(np.uint8), targets


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    images, targets = stripes(90)
    np.savez(path, images=images, targets=targets)
    return path


def test_digits(digits, tmp_path):
    done = fastconv("demo", "digits", "--data", str(digits), "--epochs", "24", "--output", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == "60 digits to learn from, 30 held out" and said[1].startswith("trained for 24 epochs in ")
    assert said[2] == "30 of 30 held-out digits read correctly: 100.00%"
    written = [line.removeprefix("wrote ").partition(", ")[0] for line in said[3:]]
    assert [Path(path).name for path in written] == ["loss.png", "confusion.png", "filters.png", "maps.png", "misread.png",
                                                     "lenet.npz"]
    assert all(Path(path).stat().st_size > 2000 for path in written)
    again = fastconv("demo", "digits", "--data", str(digits), "--epochs", "24", "--output", str(tmp_path / "again"),
                     FASTCONV_NUM_THREADS="1")
    assert again.returncode == 0
    first, second = (np.load(tmp_path / folder / "lenet.npz") for folder in ("out", "again"))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first.files)  # whatever the threads


def test_maps(digits, tmp_path):
    done = fastconv("demo", "maps", "--data", str(digits), "--epochs", "3", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "deconvolution.png", "grad_cam.png", "maps.png", "receptive_field.png", "responds_to.png", "saliency.png"]


def test_slide_and_edges(tmp_path):
    for what, files in (("slide", ["slide.gif"]), ("edges", ["edges.png"])):
        done = fastconv("demo", what, "--output", str(tmp_path / what))
        assert done.returncode == 0, done.stderr
        assert sorted(path.name for path in (tmp_path / what).iterdir()) == files
        assert all(str(tmp_path / what / name) in done.stdout for name in files)


def test_kinds_of_data(tmp_path):
    images, targets = stripes(30)
    kinds = {
        "planes": dict(x=images, y=targets), "channel": dict(images=images[:, None], labels=targets),
        "channel last": dict(images=images[..., None], targets=targets.astype(float)),
        "rows": dict(data=images.reshape(30, -1), target=targets),
        "split": dict(x_train=images[:20], y_train=targets[:20], x_test=images[20:], y_test=targets[20:]),
        "28": dict(images=np.pad(images, ((0, 0), (10, 10), (10, 10))), targets=targets),
    }
    for kind, arrays in kinds.items():
        np.savez(tmp_path / "digits.npz", **arrays)
        whole, test = demo._digits(tmp_path / "digits.npz")
        assert whole.images.shape == (20 if kind == "split" else 30, 1, 32, 32) and whole.images.dtype == np.float32
        assert 0 <= whole.images.min() and whole.images.max() <= 1 and whole.targets.dtype == np.int64
        assert (test is not None) == (kind == "split")


@pytest.mark.parametrize(("arrays", "says"), [
    (dict(pictures=np.ones((9, 8, 8))), "must have arrays images and targets, or x_train.*got pictures"),
    (dict(images=np.ones((9, 40, 40)), targets=np.zeros(9)), r"at most 32 x 32 pixels.*\(9, 40, 40\)"),
    (dict(images=np.ones((9, 8, 8)), targets=np.zeros(8)), "as many as the targets"),
    (dict(images=np.ones((9, 8, 8)), targets=np.full(9, 0.5)), "classes: integers from 0 on"),
])
def test_data_that_do_not_fit(arrays, says, tmp_path):
    np.savez(tmp_path / "digits.npz", **arrays)
    with pytest.raises(ValueError, match=says):
        demo._digits(tmp_path / "digits.npz")


def test_errors_on_the_command_line(tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"PK nonsense")
    for arguments, says in ((("digits", "--data", "nowhere.npz"), "nowhere.npz"), (("digits", "--epochs", "0"), "positive"),
                            (("digits", "--data", str(tmp_path / "broken.npz")), "no .npz file"), (("cats",), "edges")):
        done = fastconv("demo", *arguments)
        assert done.returncode != 0 and says in done.stderr and "Traceback" not in done.stderr
