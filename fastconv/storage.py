"""Arrays by name, in files: `.npz` (NumPy's) or `.safetensors` (with the library of that name); never pickled."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import files
from .errors import Unavailable, shown


def save(path: files.Name, arrays: Mapping[str, Any]) -> None:
    """Write arrays, such as a model's `state_dict()`; the file is replaced in one step, when all is written.

    Raises:
        ValueError: another ending than .npz and .safetensors.
        Unavailable: .safetensors, and the library safetensors is not installed.
        OSError: it cannot be written; what was there stays.
    """
    made = {name: np.asarray(array) for name, array in arrays.items()}
    if _ending(path) == ".safetensors":
        content = _safetensors().save({name: np.array(array, order="C") for name, array in made.items()})
    else:
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **made)
        content = stream.getvalue()
    files.write(path, content)


def load(path: files.Name) -> dict[str, np.ndarray]:
    """What `save` wrote.

    Raises:
        ValueError: another ending, or a file that is damaged or of another kind.
        Unavailable: .safetensors, and the library safetensors is not installed.
        OSError: it cannot be read.
    """
    ending = _ending(path)
    with open(path, "rb") as file:
        content = file.read()
    try:
        if ending == ".safetensors":
            return _safetensors().load(content)
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            return dict(found)
    except Unavailable:
        raise
    except Exception as error:  # whatever its readers make of a damaged file
        raise ValueError(f"{os.fspath(path)} is damaged, or holds something else: {error}") from None


def _ending(path: files.Name) -> str:
    ending = os.path.splitext(os.fspath(path))[1]
    if ending not in (".npz", ".safetensors"):
        raise ValueError(f"path must end with .npz or .safetensors, got {shown(os.fspath(path))}")
    return ending


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise Unavailable("the library safetensors is not installed: pip install safetensors") from None
    return safetensors.numpy
