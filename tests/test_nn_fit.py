"""Training: it learns, it can be repeated, and it survives what happens to it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastconv
from fastconv import batches as data
from fastconv import files, nn
from fastconv.nn.fit import History, evaluate, fit

ROOT = Path(__file__).resolve().parent.parent


def stripes(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of stripes, upright (0), level (1) or aslant (2), in noise."""
    draw = np.random.default_rng(seed)
    classes = draw.integers(0, 3, number)
    rows, columns = np.mgrid[:8, :8]
    phase = np.stack([columns, rows, rows + columns])[classes] + draw.integers(0, 4, (number, 1, 1))
    images = (phase % 4 < 2) + 0.4 * draw.standard_normal((number, 8, 8))
    return images[:, None].astype(np.float32), classes


TRAINED, HELD_OUT = stripes(240, 0), stripes(120, 1)


def network(seed: int = 0, dropout: float = 0.2) -> nn.Sequential:
    rng = np.random.default_rng(seed)
    return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1, rng=rng), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Dropout(dropout, rng=rng), nn.Linear(96, 3, rng=rng))


def trained(epochs: int = 4, model: nn.Sequential | None = None, **more) -> tuple[nn.Sequential, History]:
    model = network() if model is None else model
    optimizer = nn.Adam(model.parameters(), 0.01)
    schedule = nn.CosineAnnealingLR(optimizer, 6)
    history = fit(model, nn.CrossEntropyLoss(), optimizer, *TRAINED, epochs=epochs, batch_size=32, schedule=schedule,
                  augment=lambda images, rng: data.shift(data.noise(images, rng), rng, 1), **more)
    return model, history


def bits(model: nn.Module) -> list[bytes]:
    return [array.tobytes() for array in model.state_dict().values()]


def test_it_learns():
    model, history = trained(6, validation=HELD_OUT)
    assert not model.training and history.stopped is None and len(history.epochs) == 6
    loss, accuracy = evaluate(model, nn.CrossEntropyLoss(), *HELD_OUT)
    assert accuracy is not None and accuracy > 0.9
    best = history.epochs[history.best]
    assert loss == pytest.approx(min(history["validation_loss"])) == pytest.approx(best.validation_loss)
    assert accuracy == best.validation_accuracy and history["loss"][0] > history["loss"][-1]
    assert history["lr"][0] == 0.01 and history["lr"][1] < 0.01
    assert History.of(json.loads(json.dumps(history.record()))) == history


def test_the_same_bits_for_any_number_of_threads():
    made = []
    for threads in (1, 2, 5):
        with fastconv.config(num_threads=threads):
            made.append(bits(trained(2)[0]))
    assert made[0] == made[1] == made[2]
    assert bits(trained(2, seed=1)[0]) != made[0]


def test_regression_has_no_accuracy():
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Linear(3, 1, rng=rng))
    x = rng.standard_normal((64, 3)).astype(np.float32)
    history = fit(model, nn.MSELoss(), nn.SGD(model.parameters(), 0.1), x, x.sum(1, keepdims=True), epochs=20)
    assert history["accuracy"] == [None] * 20 and history["loss"][-1] < 1e-3


def test_patience():
    model, history = trained(60, validation=(HELD_OUT[0][:9], HELD_OUT[1][:9]), patience=2)
    assert len(history.epochs) == history.best + 3 < 60 and "no better validation loss in 2 epochs" in history.stopped


def test_a_loss_that_is_not_finite():
    model = network()
    with pytest.warns(RuntimeWarning, match=r"training stopped: the loss was nan in epoch 2, batch 3"):
        calls = iter(range(10**6))

        def spoil(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
            return images * np.float32(np.nan if next(calls) == 2 * 8 + 3 else 1)

        optimizer = nn.SGD(model.parameters(), 0.05)
        kept: list = []
        history = fit(model, nn.CrossEntropyLoss(), optimizer, *TRAINED, epochs=5, batch_size=32, augment=spoil,
                      after_epoch=lambda history: kept.append(bits(model)))
    assert history.stopped.startswith("the loss was nan") and len(history.epochs) == 2
    assert bits(model) == kept[1]  # of the last epoch that was whole


def test_ctrl_c_keeps_what_there_is():
    model, kept = network(), []

    def interrupt(history: History) -> None:
        kept.append(bits(model))
        if len(history.epochs) == 2:
            raise KeyboardInterrupt

    _, history = trained(5, model, after_epoch=interrupt)
    assert history.stopped == "interrupted in epoch 2" and bits(model) == kept[-1] and not model.training


SCRIPT = """
import sys, time
sys.path.insert(0, "tests")
from test_nn_fit import bits, trained
def after(history):
    print(len(history.epochs), flush=True)
    time.sleep(float(sys.argv[2]))
model, history = trained(6, checkpoint=sys.argv[1], after_epoch=after)
import hashlib
print(hashlib.sha256(b"".join(bits(model))).hexdigest(), history.best, history["loss"], history["lr"])
"""


def run(path: Path, pause: float = 0.0) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(path), str(pause)], cwd=ROOT, stdout=subprocess.PIPE, text=True,
                            env=environment)


def test_killed_and_gone_on_are_the_same_bits(tmp_path):
    whole = run(tmp_path / "whole.npz").communicate()[0].splitlines()
    assert len(whole) == 7
    killed = run(tmp_path / "killed.npz", 60)
    assert killed.stdout.readline() == "1\n"  # the second epoch is not yet over, and never will be
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    for _ in range(2):
        at_random = run(tmp_path / "killed.npz")
        at_random.stdout.readline()
        time.sleep(0.01)
        at_random.send_signal(signal.SIGKILL)
        at_random.communicate()
    again = run(tmp_path / "killed.npz").communicate()[0].splitlines()
    assert again[-1] == whole[-1] and len(again) < len(whole)


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    path = tmp_path / "training.npz"
    expected = bits(trained(4)[0])
    trained(3, checkpoint=path)
    content = path.read_bytes()
    path.write_bytes(content[:len(content) // 2])
    with pytest.warns(RuntimeWarning, match="training.npz is damaged.*; the checkpoint before it is taken"):
        model, history = trained(4, checkpoint=path)
    assert bits(model) == expected and len(history.epochs) == 4
    assert sorted(os.listdir(tmp_path)) == ["training.npz", "training.previous.npz"]


def test_killed_between_two_checkpoints(tmp_path):
    path = tmp_path / "training.npz"
    trained(2, checkpoint=path)
    os.remove(path)
    model, history = trained(4, checkpoint=path)
    assert bits(model) == bits(trained(4)[0])


def test_a_full_disk_leaves_the_last_checkpoint_and_the_training(tmp_path, monkeypatch):
    path = tmp_path / "training.npz"
    trained(1, checkpoint=path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_send", full)
    with pytest.warns(RuntimeWarning, match="no checkpoint after epoch .: .*No space left"):
        model, history = trained(3, checkpoint=path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["training.npz"]
    assert len(history.epochs) == 3 and bits(model) == bits(trained(3)[0])


def test_a_checkpoint_of_another_model(tmp_path):
    trained(1, checkpoint=tmp_path / "training.npz")
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 3, rng=np.random.default_rng(0)))
    with pytest.raises(ValueError, match=r"unknown 0.weight \(6, 1, 3, 3\).*1.weight must have shape \(3, 64\)"):
        trained(2, other, checkpoint=tmp_path / "training.npz")


@pytest.mark.parametrize(("change", "says"), [
    (dict(images=TRAINED[0][:7]), r"as many elements along their first axes.*\(7, 1, 8, 8\) and \(240,\)"),
    (dict(images=TRAINED[0][:0], targets=TRAINED[1][:0]), "one at least"),
    (dict(batch_size=0), "batch_size"), (dict(seed=-1), "seed"),
    (dict(validation=(TRAINED[0], HELD_OUT[1])), "validation must have"),
    (dict(targets=TRAINED[1] + 1), "target must be at least 0 and below 3"),
])
def test_bad_input(change, says):
    model = network()
    arguments = dict(images=TRAINED[0], targets=TRAINED[1], epochs=1) | change
    with pytest.raises(ValueError, match=says):
        fit(model, nn.CrossEntropyLoss(), nn.SGD(model.parameters(), 0.1), **arguments)


def test_augmentations():
    images = np.arange(4 * 2 * 5 * 6, dtype=np.float32).reshape(4, 2, 5, 6) + 1
    moved = data.shift(images, np.random.default_rng(0), 2)
    assert moved.shape == images.shape and moved.dtype == images.dtype
    for before, after in zip(images, moved):
        assert any(np.array_equal(after, np.pad(before, ((0, 0), (2, 2), (2, 2)))[:, i:i + 5, j:j + 6])
                   for i in range(5) for j in range(5))
    flipped = data.flip(images, np.random.default_rng(0))
    kinds = [np.array_equal(after, before[..., ::-1]) for before, after in zip(images, flipped)]
    assert any(kinds) and not all(kinds)
    cut = data.crop(images, np.random.default_rng(0), 3, 4)
    assert cut.shape == (4, 2, 3, 4) and len(set((cut[:, 0, 0, 0] - images[:, 0, 0, 0]).tolist())) > 1
    assert 0.03 < (data.noise(images, np.random.default_rng(0), 0.05) - images).std() < 0.07
    with pytest.raises(ValueError, match=r"at most the images' \(5, 6\), got \(6, 6\)"):
        data.crop(images, np.random.default_rng(0), 6, 6)
