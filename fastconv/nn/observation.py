"""Looking at each layer while a model computes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .module import Module


class Seen(NamedTuple):
    """One run of a layer."""

    place: str
    module: Module
    input: np.ndarray
    output: np.ndarray
    seconds: float


@contextlib.contextmanager
def observed(model: Module) -> Iterator[list[Seen]]:
    """Inside, what the model's layers (those without children) do is written down, in order; nothing is fused."""
    seen: list[Seen] = []
    watched = list(model.named_modules())
    for place, module in watched:
        if not any(True for _ in module.named_children()):
            vars(module)["forward"] = _watching(seen, place, module)
        vars(module)["_observed"] = True
    try:
        yield seen
    finally:
        for _, module in watched:
            vars(module).pop("forward", None)
            del vars(module)["_observed"]


def _watching(seen: list[Seen], place: str, module: Module) -> Any:
    forward = module.forward

    def watched(input: np.ndarray) -> np.ndarray:
        begin = time.perf_counter()
        made = forward(input)
        seen.append(Seen(place, module, input, made, time.perf_counter() - begin))
        return made

    return watched
