"""The colours of every picture and page; a contender has the same one everywhere.

Ahead, behind and tied are blue, orange and grey: everybody tells them apart, and where they stand says it once more. Text has a
contrast of at least 4.5 to its ground, what is drawn 3; a contender's colour has it on light and on dark alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LIGHT = {"ground": "#ffffff", "raised": "#f4f6f8", "ink": "#1c2126", "soft": "#59636e", "line": "#d8dee4", "link": "#0b5c85",
         "ahead": "#0969a8", "behind": "#b84a00", "tied": "#646e79", "pale": "#5b9bc6", "good": "#0b5c85", "bad": "#a84300",
         "best": "#e2eff8", "roof": "#fbeee3"}
DARK = {"ground": "#14181d", "raised": "#1e242b", "ink": "#e4e8ec", "soft": "#a3adb8", "line": "#38414b", "link": "#7cc4ea",
        "ahead": "#58b4ec", "behind": "#f0904a", "tied": "#8d98a4", "pale": "#4a7fa3", "good": "#7cc4ea", "bad": "#f2a068",
        "best": "#1b3346", "roof": "#2b221b"}

_KNOWN = {
    "cython": "#1f83bf", "numba": "#b98207", "cuda": "#4f9140", "im2col": "#75818e",
    "naive": "#95806f", "torch": "#d3583f", "onnxruntime": "#9b6cc0", "openvino": "#218f7f",
    "ncnn": "#c0703c", "opencv": "#6a7fd6", "scipy-direct": "#a08218",
    "scipy-fft": "#7d8c26",
}
_SPARE = ("#c25b93", "#4d9192", "#b56576", "#7f7fa8")


@dataclass(frozen=True)
class Look:
    colour: str
    hollow: bool  # prepared: the family's colour, drawn as an outline


def looks(names: Iterable[str]) -> dict[str, Look]:
    """By contender. What is not known by name, `cython:gemm` for one, takes what is left in turn; with it goes its
    prepared twin."""
    result: dict[str, Look] = {}
    spare: dict[str, str] = {}
    for name in names:
        family = name.removesuffix("/prepared")
        colour = _KNOWN.get(family) or spare.setdefault(family, _SPARE[len(spare) % len(_SPARE)])
        result[name] = Look(colour, family != name)
    return result
