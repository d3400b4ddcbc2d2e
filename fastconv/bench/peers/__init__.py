"""The peers: other libraries that compute the same problems, each behind a small adapter.

An adapter uses its library as someone who knows it would: everything that the library lets a user prepare is prepared before
the clock starts, the data lies where the library wants it, logging is off, and the threads are the same for everyone. What the
library cannot compute, or could only after work that is not a convolution's, the adapter refuses with a reason.

A new one is a file in this folder that ends in ``peers = (MyPeer(),)``, and its module name in `ORDER`. Importing it may
import nothing heavy: the library is imported by `start`, in a process of its own (see `worker`).
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

from ...problem import ConvProblem
from ...verify.data import Arrays

ORDER = ("torch_eager", "onnx_runtime", "open_vino", "ncnn_net", "opencv_filter", "scipy_signal", "cudnn")


class Bound(NamedTuple):
    """A library ready to compute one problem on given arrays."""

    algorithm: str  # what is known of how it computes: "direct", "gemm", "fft", "dft"; else "-"
    call: Callable[[], Any]  # one convolution, finished when it returns
    result: Callable[[], np.ndarray]  # the output of the latest call, in the problem's layout, dtype and shape


class Peer(Protocol):
    """Another library, or one way of using it."""

    @property
    def name(self) -> str: ...

    @property
    def package(self) -> str:
        """What pip installs."""

    @property
    def prepared(self) -> bool:
        """Whether weights are packed before `call`."""

    def unavailable(self) -> str | None:
        """Why it cannot run here, in one line, without importing the library; None if it can."""

    def start(self, threads: int) -> str:
        """Import the library, silence it and give it `threads` threads. Returns its name and version."""

    def refuses(self, problem: ConvProblem) -> str | None:
        """Why it does not compute the problem, in one line; None if it does; asked after `start`."""

    def bind(self, problem: ConvProblem, arrays: Arrays) -> Bound:
        """Compile, pack and copy whatever the library lets a user prepare; after `start`.

        `problem` is one that `refuses` lets pass, of at least one image. The arrays may be used where they are.
        """


@functools.cache
def registry() -> dict[str, Peer]:
    """All peers by name, in order, installed or not."""
    found = [peer for module in ORDER for peer in importlib.import_module(f".{module}", __name__).peers]
    return {peer.name: peer for peer in found}


def names() -> tuple[str, ...]:
    """The names of all peers, in order, installed or not."""
    return tuple(registry())


def get(name: str) -> Peer:
    """The peer of that name.

    Raises:
        ValueError: there is none.
    """
    found = registry().get(name)
    if found is None:
        raise ValueError(f"peer must be one of {', '.join(registry())}, got {name!r}")
    return found
