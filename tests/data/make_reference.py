"""Writes reference.npz: small results of outside libraries, so that the tests compare with them where they are not installed.

    python tests/data/make_reference.py

Made with torch 2.13.0 and scipy 1.17.1. Inputs are drawn as integers over 8, so that the float64 results are exact or nearly.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy import ndimage, signal

TORCH = {  # name: (input shape, weight shape, bias, positional arguments after it: stride, padding, dilation, groups)
    "conv1d": ((2, 3, 11), (4, 3, 3), True, (2, 1, 2, 1)),
    "conv1d_groups": ((1, 4, 9), (6, 2, 2), False, (1, 0, 1, 2)),
    "conv2d": ((2, 3, 7, 8), (5, 3, 3, 2), True, ((2, 1), (1, 0), 1, 1)),
    "conv2d_dilation": ((1, 4, 9, 9), (4, 1, 3, 3), True, (1, 2, (2, 1), 4)),
    "conv2d_unbatched": ((2, 5, 6), (3, 2, 3, 3), True, (1, 1, 1, 1)),
    "conv2d_same": ((1, 2, 6, 5), (3, 2, 3, 4), False, (1, "same", 1, 1)),
    "conv3d": ((1, 2, 4, 5, 6), (4, 1, 2, 3, 2), True, ((1, 2, 1), (0, 1, 1), 1, 2)),
}
MODES = {"reflect": "reflect", "replicate": "replicate", "circular": "circular"}


def draw(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(-16, 17, shape) / 8


def main() -> None:
    rng = np.random.default_rng(11)
    stored = {}
    for name, (input_shape, weight_shape, bias, rest) in TORCH.items():
        x, w = draw(rng, input_shape), draw(rng, weight_shape)
        b = draw(rng, weight_shape[:1]) if bias else None
        function = getattr(torch.nn.functional, name.partition("_")[0])
        y = function(torch.tensor(x), torch.tensor(w), None if b is None else torch.tensor(b), *rest)
        stored.update({f"{name}/x": x, f"{name}/w": w, f"{name}/y": y.numpy()} | ({} if b is None else {f"{name}/b": b}))
    x, w = draw(rng, (1, 2, 5, 6)), draw(rng, (2, 2, 3, 3))
    stored.update({"modes/x": x, "modes/w": w})
    for mode in MODES:
        padded = torch.nn.functional.pad(torch.tensor(x), (2, 1, 0, 3), mode=mode)  # last axis first
        stored[f"modes/{mode}"] = torch.nn.functional.conv2d(padded, torch.tensor(w)).numpy()
    image, kernel, even = draw(rng, (8, 9)), draw(rng, (3, 5)), draw(rng, (4, 2))
    stored.update({"image/image": image, "image/odd": kernel, "image/even": even})
    for size, k in (("odd", kernel), ("even", even)):
        for mode in ("same", "valid", "full"):
            stored[f"image/correlate {size} {mode}"] = signal.correlate(image, k, mode)
            stored[f"image/convolve {size} {mode}"] = signal.convolve(image, k, mode)
        for mode in ("constant", "reflect", "mirror", "nearest", "wrap"):
            stored[f"image/ndimage {size} {mode}"] = ndimage.correlate(image, k, mode=mode, cval=0.5)
    np.savez_compressed(Path(__file__).with_name("reference.npz"), **stored)


if __name__ == "__main__":
    main()
