"""What an element of a layer's output sees of the input of a network."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple


class Window(NamedTuple):
    """What one element of an output sees along the axes of space: without axes, of none but its own place. The stride of a
    transposed convolution is below 1."""

    kernel: tuple[int, ...] = ()
    stride: tuple[float, ...] = ()
    dilation: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Field:
    """A receptive field: its size, and how far apart those of neighbours are, in pixels of the model's input."""

    size: tuple[float, ...]
    apart: tuple[float, ...]

    def pixels(self) -> tuple[int, ...]:
        return tuple(round(size) for size in self.size)

    def through(self, window: Window | None) -> Field | None:
        """Behind a layer; None: it sees all of an image."""
        if window is None or not window.kernel:
            return None if window is None else self
        sizes, aparts = self.size or (1.0,) * len(window.kernel), self.apart or (1.0,) * len(window.kernel)
        grown = tuple(size + (kernel - 1) * dilation * apart
                      for size, apart, kernel, dilation in zip(sizes, aparts, window.kernel, window.dilation))
        return Field(grown, tuple(apart * stride for apart, stride in zip(aparts, window.stride)))
