"""The text form of a problem: oneDNN's benchdnn line.

``[--dir=FWD_D] [--dt=f64] [--stag=axb] [--attr-post-ops=sum+relu] mb1_ic64ih56iw56_oc64oh56ow56_kh3kw3sh1sw1ph1pw1_n"x*3"``

Letters as there: g groups, mb batch (2 when omitted), ic / oc channels, i / o / k / s / p / d with d, h, w for input, output,
kernel, stride, low padding and dilation (0 is none) along depth, height, width. A size given for the highest axis only holds
for all. The far padding derives from the output size. The direction is FWD_B (with bias) when omitted; BWD_WB is BWD_W, as the
bias's gradient is a sum by itself. fastconv's own are the direction BWD_DB (transposed convolution with a bias) and the knobs
``--padding-mode=reflect`` and ``--accuracy=strict``. A name may end in ``*N``, the layer's count in its network.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from .errors import shown

_DIRECTIONS = {"FWD_B": ("forward", True), "FWD_D": ("forward", False), "FWD_I": ("forward", False),
               "BWD_D": ("backward_input", False), "BWD_DB": ("backward_input", True), "BWD_W": ("backward_weight", False),
               "BWD_WB": ("backward_weight", False)}
_DTYPES = {"f32": "float32", "f64": "float64"}
_CHANNELS_LAST = ("axb", "nwc", "nhwc", "ndhwc", "acb", "acdb", "acdeb")
_CHANNELS_FIRST = ("abx", "any", "ncw", "nchw", "ncdhw", "abc", "abcd", "abcde")
_POST_OPS = {"relu": "relu", "relu6": "clip:0:6", "sigmoid": "logistic", "tanh": "tanh", "gelu": "gelu_erf",
             "gelu_tanh": "gelu_tanh", "silu": "swish:1", "hardswish": "hardswish"}
_POST_OP_NAMES = {**{text: name for name, text in _POST_OPS.items()}, **{name: name for name in _POST_OPS}, "swish": "silu"}

_Default = TypeVar("_Default")
_TOKEN = re.compile(r'_*(?:(g|mb|[io]c|[iokspd][dhw])(-?[0-9]+)|n(?:"([^"]*)"|(\S+)))')
_SLOPE = re.compile(r"(?:leaky_)?relu:([-+]?[0-9]*\.?[0-9]+(?:e[-+]?[0-9]+)?)")


def parse(text: str) -> dict[str, Any]:
    """Keyword arguments of ConvProblem for one line.

    Raises:
        ValueError: the line is malformed; the message quotes the part that is.
    """
    if not isinstance(text, str):
        raise TypeError(f"a problem text must be a string, got {shown(text)}")
    with suppress(UnicodeError):  # an argument of a locale that cannot decode it
        text = text.encode("utf-8", "surrogateescape").decode()
    knobs, descriptor = _split(text)
    values, name = _tokens(descriptor)
    arguments = _geometry(values, descriptor, unread=any(key == "dir" and value in ("BWD_D", "BWD_DB") for key, value in knobs))
    for key, value in knobs:
        arguments.update(_knob(key, value))
    arguments.setdefault("bias", True)
    label = re.fullmatch(r"(.*)\*([0-9]+)", name)
    if label:
        name, arguments["count"] = label[1], _number(label[2], descriptor)
    return {**arguments, "name": name}


def _split(text: str) -> tuple[list[tuple[str, str]], str]:
    words = re.findall(r'(?:"[^"]*"|[^\s"])+', text)  # blanks separate, except within the quotes of a name
    if text.count('"') % 2:
        raise ValueError(f"malformed problem {shown(text)}: no closing quotation mark")
    knobs = [word[2:].partition("=") for word in words if word.startswith("--")]
    rest = [word for word in words if not word.startswith("--")]
    if not all(equals for _, equals, _ in knobs) or len(rest) != 1:
        raise ValueError(f"malformed problem {shown(text)}: expected knobs like --dt=f64 and one descriptor "
                         "like mb1_ic3ih8oc4kh3")
    return [(key, value) for key, _, value in knobs], rest[0]


def _tokens(descriptor: str) -> tuple[dict[str, int], str]:
    values: dict[str, int] = {}
    name, position = "", 0
    while position < len(descriptor):
        token = _TOKEN.match(descriptor, position)
        if token is None:
            if set(descriptor[position:]) == {"_"}:
                break
            raise ValueError(f"malformed problem {shown(descriptor)}: cannot read {shown(descriptor[position:])}")
        if token[1]:
            if token[1] in values:
                raise ValueError(f"malformed problem {shown(descriptor)}: {token[1]} is given twice")
            values[token[1]] = _number(token[2], descriptor)
        else:
            name = token[3] if token[3] is not None else token[4]
        position = token.end()
    return values, name


def _number(digits: str, descriptor: str) -> int:
    if len(digits) > 20:
        raise ValueError(f"malformed problem {shown(descriptor)}: sizes must be below 2**63, got {shown(digits)}")
    return int(digits)


def _axes(values: dict[str, int], kind: str, ndim: int, default: _Default) -> list[int | _Default]:
    """The values of one kind along the last `ndim` of d, h, w; only the highest given: it holds for all."""
    keys = [kind + axis for axis in "dhw"[3 - ndim:]]
    if keys[0] in values and not any(key in values for key in keys[1:]):
        keys = keys[:1] * ndim
    return [values.get(key, default) for key in keys]


def _geometry(values: dict[str, int], descriptor: str, unread: bool) -> dict[str, Any]:
    def need(condition: bool, what: str) -> None:
        if not condition:
            raise ValueError(f"malformed problem {shown(descriptor)}: {what}")

    def sizes(kind: str, what: str) -> list[int]:
        found = [size for size in _axes(values, kind, ndim, None) if size is not None]
        need(len(found) == ndim, f"{what} size ({kind}d, {kind}h, {kind}w) is missing")
        return found

    axes = {key[1] for key in values if len(key) == 2 and key[1] in "dhw"}
    need(bool(axes) and "ic" in values and "oc" in values, "ic, oc, and input and kernel sizes are needed")
    ndim = 3 if "d" in axes else 2 if "h" in axes else 1
    size, kernel = sizes("i", "an input"), sizes("k", "a kernel")
    stride, dilation = _axes(values, "s", ndim, 1), _axes(values, "d", ndim, 0)
    need(min(stride) > 0, "strides must be positive")
    need(min(dilation) >= 0, "dilations must be at least 0 (0 is none)")
    padding = [
        _padding(need, unread, *axis) for axis in
        zip(size, kernel, stride, dilation, _axes(values, "o", ndim, None), _axes(values, "p", ndim, None))]
    return dict(input_size=tuple(size), kernel_size=tuple(kernel), stride=tuple(stride),
                dilation=tuple(d + 1 for d in dilation), padding=tuple(padding),
                in_channels=values["ic"], out_channels=values["oc"], batch=values.get("mb", 2), groups=values.get("g", 1))


def _padding(need: Callable[[bool, str], None], unread: bool, size: int, kernel: int, stride: int, dilation: int,
             output: int | None, low: int | None) -> tuple[int, int]:
    """(low, high) along one axis; the far padding is what makes `output` windows fit."""
    extent = (dilation + 1) * (kernel - 1) + 1
    if output is None:
        return (low or 0, low or 0)
    total = (output - 1) * stride + extent - size
    if low is None:
        low = max(0, total // 2)
    need(output > 0, "output sizes must be positive")
    need(unread or total - low > -stride, f"an output of {output} leaves input unread: {size} + {low} holds more windows of "
                                          f"{extent} at stride {stride}")
    return low, total - low


def _knob(key: str, value: str) -> dict[str, Any]:
    if key == "dir" and value in _DIRECTIONS:
        direction, bias = _DIRECTIONS[value]
        return {"direction": direction, "bias": bias}
    if key in ("dt", "cfg") and value in _DTYPES:
        return {"dtype": _DTYPES[value]}
    if key in ("stag", "dtag") and value in _CHANNELS_LAST + _CHANNELS_FIRST:
        return {"layout": "channels_last" if value in _CHANNELS_LAST else "channels_first"} if value != "any" else {}
    if key == "attr-post-ops":
        return _post_ops(value)
    if key in ("padding-mode", "accuracy"):
        return {key.replace("-", "_"): value}
    raise ValueError(f"malformed problem: unknown knob {shown(f'--{key}={value}')}")


def _post_ops(value: str) -> dict[str, Any]:
    """``sum``, an activation, or ``sum+activation``: the order fastconv's epilogue computes in."""
    ops = value.split("+")
    arguments: dict[str, Any] = {}
    if ops[0] == "sum":
        arguments["residual"] = True
        ops = ops[1:]
    if len(ops) > 1:
        raise ValueError(f"malformed problem: --attr-post-ops must be sum, an activation, or sum+activation, "
                         f"got {shown(value)}")
    for op in ops:
        if op in _POST_OP_NAMES:
            arguments["activation"] = _POST_OP_NAMES[op]
        elif slope := _SLOPE.fullmatch(op):
            arguments["activation"] = ("leaky_relu", float(slope[1]))
        else:
            raise ValueError(f"malformed problem: unknown activation {shown(op)} in --attr-post-ops={shown(value)}")
    return arguments


def render(problem: Any) -> str:
    """The line of a ConvProblem: every size printed, knobs only where they differ from the default."""
    direction = next(key for key, value in _DIRECTIONS.items() if value == (problem.direction, problem.bias))
    ops = (["sum"] if problem.residual else []) + ([_post_op(*problem.activation)] if problem.activation else [])
    knobs = [
        f"--dir={direction}" if direction != "FWD_B" else "",
        "--dt=f64" if problem.dtype == "float64" else "",
        "--stag=axb" if problem.channels_last else "",
        f"--attr-post-ops={'+'.join(ops)}" if ops else "",
        f"--padding-mode={problem.padding_mode}" if problem.padding_mode != "zeros" else "",
        f"--accuracy={problem.accuracy}" if problem.accuracy != "fast" else "",
    ]
    axes = "dhw"[3 - problem.ndim:]

    def sizes(kind: str, values: Any) -> str:
        return "".join(f"{kind}{axis}{value}" for axis, value in zip(axes, values))

    head = f"mb{problem.batch}" + (f"_g{problem.groups}" if problem.groups != 1 else "")
    parts = [head, f"ic{problem.in_channels}" + sizes("i", problem.input_size),
             f"oc{problem.out_channels}" + sizes("o", problem.output_size),
             sizes("k", problem.kernel_size) + sizes("s", problem.stride) + sizes("p", [low for low, _ in problem.padding])
             + (sizes("d", [d - 1 for d in problem.dilation]) if any(d > 1 for d in problem.dilation) else "")]
    if problem.name or problem.count > 1:
        parts.append(f'n"{problem.name}{f"*{problem.count}" if problem.count > 1 else ""}"')
    return " ".join([knob for knob in knobs if knob] + ["_".join(parts)])


def _post_op(name: str, parameter: float) -> str:
    return f"relu:{parameter!r}" if name == "leaky_relu" else _POST_OPS[name]
