"""How the Numba kernels cut a depthwise problem whose channels lie side by side: broadcast's frame (`kernels`), in which a
vector of channels takes the place of a group, and its tiles, which read a vector where they would broadcast an element. So any
kernel, stride, dilation and padding is but offsets.

Bottleneck: loads, one for each multiply-add.
"""

from __future__ import annotations

import numpy as np

from ...problem import ConvProblem
from . import blocking


class Shape(blocking.Shape):
    def __init__(self, problem: ConvProblem, algorithm: str, tile: tuple[int, ...] | None = None) -> None:
        super().__init__(problem, "broadcast")
        self.inputs = self.outputs = self.stored = self.lanes
        self.groups, self.depth = problem.groups // self.lanes, problem.kernel_volume
        self.packed_bytes = problem.groups * self.depth * self.item
        self.packed_for = ("side by side",)


class Call(blocking.Call):
    TILES = ("", "", "each")
    shape: Shape

    def _in_place(self) -> bool:
        if self.steps[0][1] != self.shape.item:
            self.whole_steps = False  # copies are computed with
        return super()._in_place()

    def _taps(self) -> np.ndarray:
        """Of one channel: a tile reads those beside it."""
        return super()._taps()[: self.shape.depth]
