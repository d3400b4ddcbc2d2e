"""Arguments as users give them: integers, flags, words, one entry per axis. What passes is a plain value; a message names the
argument, the value and the rule."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import shown

LAYOUTS = {
    "channels_first": (1, 2, 3), "channels_last": (1, 2, 3),
    "NCW": (1,), "NCHW": (2,), "NCDHW": (3,), "NWC": (1,), "NHWC": (2,), "NDHWC": (3,),
}


def integer(name: str, value: Any, least: int | None, whole: Any = None) -> int:
    """`value` as a Python int, at least `least` (None: any). NumPy integers pass; bool, float and str do not."""
    given = value if whole is None else whole
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {shown(given)}")
    try:
        number = operator.index(value)
    except Exception:  # whatever an object's __index__ does
        raise TypeError(f"{name} must be an integer, got {shown(given)}") from None
    if least is not None and number < least:
        rule = "positive" if least == 1 else "at least 0"
        raise ValueError(f"{name} must be {rule}, got {shown(given)}")
    if number >= 2**63:
        raise ValueError(f"{name} must be below 2**63, got {shown(given)}")
    return number


def flag(name: str, value: Any) -> bool:
    """`value` as a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, one of {', '.join(allowed)}, got {shown(value)}")
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {shown(value)}")


def axes_of(name: str, value: Any, ndim: int, least: int = 1) -> tuple[int, ...]:
    """One integer per axis, of one for all or that many; as PyTorch takes it, also of a single one in a sequence."""
    entries = _entries(value)
    if entries is None:
        return (integer(name, value, least),) * ndim
    if len(entries) not in (1, ndim):
        raise ValueError(f"{name} must be an integer or {ndim} of them, one per spatial axis, got {shown(value)}")
    return tuple(integer(name, entry, least, whole=value) for entry in entries) * (ndim // len(entries))


def positive_tuple(name: str, value: Any, ndim: int) -> tuple[int, ...]:
    """One entry per axis, of an integer or that many."""
    entries = _entries(value)
    if entries is not None and len(entries) != ndim:
        raise ValueError(f"{name} must be an integer or {ndim} of them, one per spatial axis, got {shown(value)}")
    return axes_of(name, value, ndim)


def shape(name: str, value: Any) -> tuple[int, ...]:
    """The shape of the argument `name`, as given by its user."""
    entries = _entries(value)
    if entries is None:
        raise TypeError(f"{name} shape must be a tuple of integers, got {shown(value)}")
    return tuple(integer(f"{name} shape", entry, 0, whole=value) for entry in entries)


def normalize_layout(layout: str, ndim: int) -> str:
    if not isinstance(layout, str):
        raise TypeError(f"layout must be a string, got {shown(layout)}")
    if ndim not in LAYOUTS.get(layout, ()):
        fitting = [name for name, dims in LAYOUTS.items() if ndim in dims]
        raise ValueError(f"layout for {ndim} spatial axes must be one of {', '.join(fitting)}, got {shown(layout)}")
    return "channels_last" if layout[-1] in "Ct" and layout != "channels_first" else "channels_first"


def image_sizes(name: str, function: str, shape: Sequence[int], ndim: int, layout: str) -> tuple[int, int, tuple[int, ...]]:
    """(batch, channels, spatial sizes) of images: an array of rank ndim + 1 is one of them.

    Args:
        layout: "channels_first" or "channels_last".
    """
    space, last = "DHW"[3 - ndim:], layout == "channels_last"
    expected = f"(N, {', '.join(space)}, C)" if last else f"(N, C, {', '.join(space)})"
    if len(shape) not in (ndim + 1, ndim + 2):
        raise ValueError(f"{name} of {function} must have shape {expected}, or the same without N, got {shown(tuple(shape))}")
    channels, size = (shape[-1], shape[-ndim - 1:-1]) if last else (shape[-ndim - 1], shape[-ndim:])
    return shape[0] if len(shape) == ndim + 2 else 1, channels, tuple(size)


def given(value: Any, otherwise: Any) -> Any:
    """A field's value; () stands for the default."""
    return otherwise if isinstance(value, tuple) and not value else value


def _entries(value: Any) -> tuple[Any, ...] | None:
    """The entries of a tuple, a list or an array of one axis; None if it is something else."""
    if isinstance(value, (tuple, list)):
        return tuple(value)
    try:
        return tuple(value) if np.ndim(value) == 1 else None
    except Exception:  # whatever an object does when NumPy looks at it
        return None
