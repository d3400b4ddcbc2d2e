"""State of `fastconv.nn`: names, what does not fit, files."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from fastconv import Unavailable, files, nn, storage


def model() -> nn.Sequential:
    draw = np.random.default_rng(0)
    return nn.Sequential({
        "stem": nn.Sequential(nn.Conv2d(3, 4, 3, bias=False, rng=draw), nn.BatchNorm2d(4)),
        "block": nn.Residual(nn.Conv2d(4, 4, 3, padding=1, rng=draw), nn.Conv2d(4, 4, 1, bias=False, rng=draw),
                             names=("", "downsample")),
        "fc": nn.Linear(4, 2, rng=draw)})


def test_names_are_pytorchs():
    assert {name: array.shape for name, array in model().state_dict().items()} == {
        "stem.0.weight": (4, 3, 3, 3), "stem.1.weight": (4,), "stem.1.bias": (4,), "stem.1.running_mean": (4,),
        "stem.1.running_var": (4,), "stem.1.num_batches_tracked": (), "block.weight": (4, 4, 3, 3), "block.bias": (4,),
        "block.downsample.weight": (4, 4, 1, 1), "fc.weight": (2, 4), "fc.bias": (2,)}


def test_all_that_does_not_fit_is_listed_and_nothing_changes():
    ours = model()
    state = ours.state_dict()
    del state["fc.bias"]
    state["fc.weight"] = np.ones((3, 4))
    state["head.weight"] = np.ones((1, 2))
    state["stem.0.weight"] = state["stem.0.weight"] + 1
    before = ours.state_dict()
    with pytest.raises(ValueError, match=r"missing fc.bias \(2,\); unknown head.weight \(1, 2\); "
                                         r"fc.weight must have shape \(2, 4\), got \(3, 4\)"):
        ours.load_state_dict(state)
    for name, array in ours.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_files(tmp_path, ending):
    if ending == ".safetensors":
        pytest.importorskip("safetensors")
    path, state = tmp_path / f"model{ending}", model().state_dict()
    storage.save(path, state)
    read = storage.load(path)
    assert list(read) == list(state) or sorted(read) == sorted(state)
    for name, array in read.items():
        np.testing.assert_array_equal(array, state[name])
        assert array.dtype == state[name].dtype
    model().load_state_dict(read)
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) * 2 // 3])
    with pytest.raises(ValueError, match=f"model{ending} is damaged"):
        storage.load(path)


def test_every_flipped_byte_of_an_array_is_noticed(tmp_path):
    path = tmp_path / "model.npz"
    storage.save(path, {"weight": np.arange(50.0)})
    whole = path.read_bytes()
    begin = whole.index(np.arange(50.0).tobytes())
    for place in range(begin, begin + 400, 37):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1:])
        with pytest.raises(ValueError, match="damaged"):
            storage.load(path)


def test_no_pickles(tmp_path):
    path = tmp_path / "model.npz"
    np.savez(path, weight=np.array([{"a": 1}], object))
    with pytest.raises(ValueError, match="damaged, or holds something else"):
        storage.load(path)


@pytest.mark.parametrize("name", ["model", "model.pt", "model.npy"])
def test_another_ending(tmp_path, name):
    for call in (lambda path: storage.save(path, {}), storage.load):
        with pytest.raises(ValueError, match=r"must end with .npz or .safetensors"):
            call(tmp_path / name)


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    storage.save(path, {"weight": np.ones(3)})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_send", full)
    with pytest.raises(OSError, match="No space"):
        storage.save(path, {"weight": np.zeros(1000)})
    np.testing.assert_array_equal(storage.load(path)["weight"], np.ones(3))


def test_without_safetensors(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    with pytest.raises(Unavailable, match="pip install safetensors"):
        storage.save(tmp_path / "model.safetensors", {})


def test_dtypes():
    ours = model().to("float64")
    assert {array.dtype.name for name, array in ours.state_dict().items() if "tracked" not in name} == {"float64"}
    assert ours.state_dict()["stem.1.num_batches_tracked"].dtype == np.int64
    with pytest.raises(TypeError, match="dtype must be float32 or float64"):
        ours.to(np.int32)
    with pytest.raises(ValueError, match=r"data must have shape \(2,\), got \(3,\)"):
        ours.parameters()[-1].data = np.ones(3)
