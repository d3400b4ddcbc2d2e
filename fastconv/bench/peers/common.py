"""What the adapters share: looking for a library without importing it, and reasons that several of them give."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ...backends import refuses_direction
from ...problem import ConvProblem
from ...stated import padding as pads


def folder_of(module: str) -> Path | None:
    """Where a top-level module or package is installed, without importing it; None: it is not."""
    try:
        spec = importlib.util.find_spec(module)
    except ValueError:  # it is being replaced in sys.modules
        return None
    # without an origin it is a namespace: any folder of that name on the path, such as one in the current directory
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def missing(package: str, *modules: str) -> str | None:
    """The reason of a peer whose modules are not all installed."""
    return None if all(folder_of(module) is not None for module in modules) else f"not installed (pip install {package})"


def library(module: str) -> Any:
    """Import it. By name and untyped, as it may not be installed where the types are checked."""
    return importlib.import_module(module)


def refuses_extras(problem: ConvProblem, activations: Collection[str] = ()) -> str | None:
    """The reason of every peer that computes convolution, bias and perhaps some activations, and nothing before or after."""
    return refuses_epilogue(problem, activations) or refuses_direction(problem)


def refuses_epilogue(problem: ConvProblem, activations: Collection[str] = ()) -> str | None:
    """The reason of every peer that adds a bias, and perhaps has some activations."""
    if problem.residual:
        return "no residual is timed"
    if problem.activation is not None and problem.activation[0] not in activations:
        return f"no {problem.activation[0]} is timed" if activations else "no activation is timed"
    return None


def refuses_all_but_plain(problem: ConvProblem, library: str, activations: Collection[str] = ()) -> str | None:
    """The reason of an inference library that is given convolutions and transposed ones, in float32, channels first, padded
    with zeros."""
    if problem.dtype != "float32":
        return f"{library} computes in float32 on a CPU, not {problem.dtype}"
    if problem.channels_last:
        return f"{library} takes channels first"
    if border(problem) != "zeros":
        return f"{library}'s convolution pads with zeros only, not {border(problem)}"
    if problem.direction == "backward_weight":
        return f"{library} computes no gradients of weights"
    return refuses_epilogue(problem, activations)


def transposes(problem: ConvProblem) -> bool:
    """Whether it is a transposed convolution to a library that has them: the gradient of an input is one."""
    return problem.direction == "backward_input"


def border(problem: ConvProblem) -> str:
    """The padding mode; "zeros" where nothing is padded, which every library can do."""
    return problem.padding_mode if any(map(any, pads(problem))) else "zeros"
