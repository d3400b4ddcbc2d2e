"""One colour and one marker per contender, the same in every picture; both read on light and on dark ground."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_KNOWN = {
    "cython": ("#1f86b4", "o"), "numba": ("#e08e0b", "s"), "cuda": ("#5b8c3e", "h"), "im2col": ("#7d8a98", "D"),
    "naive": ("#a58d7f", "^"), "torch": ("#d9534f", "v"), "onnxruntime": ("#9a6bb5", "P"), "openvino": ("#2fa18c", "X"),
    "ncnn": ("#c77a4a", "<"), "opencv": ("#6a7fd6", ">"), "scipy-direct": ("#b08f1a", "p"),
    "scipy-fft": ("#8a9a2b", "H"),
}
_SPARE = (("#c25b93", "d"), ("#5f9ea0", "8"), ("#b56576", "*"), ("#7f7fa8", "p"))


@dataclass(frozen=True)
class Look:
    colour: str
    marker: str
    hollow: bool  # prepared: the family's colour, drawn as an outline


def looks(names: Iterable[str]) -> dict[str, Look]:
    """By contender. What is not known by name, `cython:gemm` for one, takes what is left in turn; with it goes its
    prepared twin."""
    result: dict[str, Look] = {}
    spare: dict[str, tuple[str, str]] = {}
    for name in names:
        family = name.removesuffix("/prepared")
        colour, marker = _KNOWN.get(family) or spare.setdefault(family, _SPARE[len(spare) % len(_SPARE)])
        result[name] = Look(colour, marker, family != name)
    return result
