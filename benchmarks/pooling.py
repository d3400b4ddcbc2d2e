"""Pooling against PyTorch: 20 calls as networks make them, and large ones, each verified before it is timed.

    python benchmarks/pooling.py [--rounds 7] [--threads 2] [--only PART OF A LABEL]

Every result, ours and PyTorch's, is compared with a float64 one first. How it is timed, and what the columns say: see
`_paired.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from _paired import ROUNDOFF, run

import fastconv


class Case(NamedTuple):
    name: str
    function: str  # of fastconv and torch
    shape: tuple[int, ...]  # (N, C, *space)
    arguments: dict[str, Any]
    last: bool = False  # channels_last
    large: bool = False
    takes_out = True

    @property
    def label(self) -> tuple[str, ...]:
        return self.name, self.function, "x".join(map(str, self.shape)), "last" if self.last else "first"

    def operands(self) -> tuple[np.ndarray, ...]:
        """The input: (N, *space, C) if channels_last."""
        x = np.random.default_rng(len(self.name)).standard_normal(self.shape, np.float32)
        return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if self.last else x,

    def ours(self, operands: tuple[np.ndarray, ...], out: np.ndarray | None = None, backend: str = "auto") -> np.ndarray:
        layout = "channels_last" if self.last else "channels_first"
        result = getattr(fastconv, self.function)(operands[0], **self.arguments, layout=layout, out=out, backend=backend)
        return result[0] if isinstance(result, tuple) else result

    def theirs(self, torch: Any, operands: tuple[np.ndarray, ...]) -> Callable[[], Any]:
        x = torch.from_numpy(operands[0])
        x = x.movedim(-1, 1) if self.last else x
        return functools.partial(getattr(torch.nn.functional, self.function), x, **self.arguments)

    def of_torch(self, result: Any) -> np.ndarray:
        found = (result[0] if isinstance(result, tuple) else result).numpy()
        return np.moveaxis(found, 1, -1) if self.last else found

    def wrong(self, operands: tuple[np.ndarray, ...], result: np.ndarray) -> str | None:
        """Compared with NumPy's slices in float64: maxima exactly, sums within their roundings."""
        x = operands[0].astype(np.float64)
        exact = self.ours((x,), backend="im2col")
        allowed: Any = 0
        if "max" not in self.function:
            allowed = 80 * ROUNDOFF * self.ours((np.abs(x),), backend="im2col")
        return None if result.shape == exact.shape and (np.abs(result - exact) <= allowed).all() else "wrong"


STEM = dict(kernel_size=3, stride=2, padding=1)
HALF = dict(kernel_size=2, stride=2)
SAME = dict(kernel_size=3, stride=1, padding=1)
ONE = dict(output_size=1)
CASES = (
    Case("resnet stem", "max_pool2d", (8, 64, 112, 112), STEM),
    Case("resnet stem", "max_pool2d", (8, 64, 112, 112), STEM, last=True),
    Case("resnet stem, one", "max_pool2d", (1, 64, 112, 112), STEM),
    Case("vgg 1", "max_pool2d", (1, 64, 224, 224), HALF),
    Case("vgg 3", "max_pool2d", (1, 256, 56, 56), HALF),
    Case("vgg 3", "max_pool2d", (1, 256, 56, 56), HALF, last=True),
    Case("googlenet", "max_pool2d", (1, 192, 56, 56), dict(kernel_size=3, stride=2, ceil_mode=True)),
    Case("inception 3a", "max_pool2d", (8, 192, 28, 28), SAME),
    Case("inception 5a", "max_pool2d", (8, 832, 7, 7), SAME),
    Case("spp", "max_pool2d", (1, 512, 13, 13), dict(kernel_size=5, stride=1, padding=2)),
    Case("unet, places", "max_pool2d", (1, 64, 256, 256), dict(**HALF, return_indices=True)),
    Case("inception", "avg_pool2d", (8, 288, 35, 35), SAME),
    Case("inception", "avg_pool2d", (8, 288, 35, 35), SAME, last=True),
    Case("densenet", "avg_pool2d", (1, 128, 56, 56), HALF),
    Case("global", "adaptive_avg_pool2d", (8, 2048, 7, 7), ONE),
    Case("global", "adaptive_avg_pool2d", (1, 2048, 7, 7), ONE, last=True),
    Case("alexnet", "adaptive_avg_pool2d", (8, 256, 13, 13), dict(output_size=6)),
    Case("speech", "max_pool1d", (8, 64, 16000), dict(kernel_size=4, stride=4)),
    Case("video", "max_pool3d", (1, 64, 16, 56, 56), HALF),
    Case("norm", "lp_pool2d", (1, 128, 56, 56), dict(norm_type=2.0, **HALF)),
    # at least 4 x 32 MB
    Case("resnet stem", "max_pool2d", (48, 64, 112, 112), STEM, large=True),
    Case("vgg 1", "max_pool2d", (12, 64, 224, 224), HALF, large=True),
    Case("vgg 1", "max_pool2d", (12, 64, 224, 224), HALF, last=True, large=True),
    Case("inception", "avg_pool2d", (64, 288, 35, 35), SAME, large=True),
    Case("speech", "max_pool1d", (32, 64, 16000), HALF, large=True),
    Case("speech", "max_pool1d", (8, 64, 16000), HALF),
    Case("speech", "max_pool1d", (8, 64, 16000), dict(kernel_size=3, stride=3)),
)


if __name__ == "__main__":
    run(__doc__, CASES, ("name", "function", "shape", ""), (17, 20, 17, 6))
