"""Which forward problems an algorithm computes for another direction, and what they take together.

A backend estimates the forward direction, of one image. The forward problems of a gradient of the weight have images of their
own, the input channels, or none (see `weight_gradient`), so that what depends on their number is added here.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

from . import settings, weight_gradient
from .algorithms import packs_any_order, sums_products
from .dtypes import TABLE
from .lowering import Part
from .problem import ConvProblem

_TRANSFORM = 2e-5  # seconds for the large kernel that a gradient is, in each group (measured on depthwise layers: 10 to 46 us)
_CALLED = 2e-5  # seconds for what Python and NumPy do around each forward problem but one, which others do as well
_BESIDE = 2.5e-5, 4.5e-5  # seconds for the same around a whole gradient of the weight, and around one as products; kernels of
# its own have none of it (30 layers)
_STRIDED = 1.5e-9  # seconds for each element of images whose channels lie side by side, where a gradient reads them as planes
_COPIED = 5e-10  # seconds for each element that products of pixels want beside others, by one thread
_PLACED = 0.5e-10  # seconds for each byte of a result that phases at once are put in place of
_APART = 3e-10  # seconds for each byte of a result that is written a stride apart (both measured on 20 layers)
_FILLED = 3e-6, 0.7e-10  # seconds where phases without a kernel are filled, and for each byte of the result (5 layers)
_FEW = 0.03  # images are few channels; the larger they are, the more of their transforms leave the caches (measured, 12 layers)
_TRAINED, _DECODED = settings.BATCH_IN_TRAINING, 2  # images that share the packed weights of a gradient of the input, unless
# settings say it: with stride 1 it is a training step's; with others as often a transposed convolution of one image
_ARRANGED = 1.2e-9  # seconds for each weight that is put in order before it is packed; half where packing does it on the way;
# twice for every other tap, or fewer
_TILE = 4  # rows of most of winograd's: those of an image are whole


def as_products(p: ConvProblem, algorithm: str) -> bool:
    """Whether it computes the gradient of the weight as products over pixels: what sums products does."""
    return weight_gradient.applies(p) and algorithm != "depthwise" and sums_products(algorithm)


def forward_problems(p: ConvProblem, algorithm: str, parts: tuple[Part, ...]) -> list[tuple[ConvProblem, int]]:
    """(forward problem, how often), phase by phase."""
    if as_products(p, algorithm):
        return list(weight_gradient.products(p))
    return [(part.problem, 1) for part in parts if part.problem is not None]


def joining_pays(p: ConvProblem, algorithm: str, parts: tuple[Part, ...], joined: ConvProblem,
                 of_image: Callable[[ConvProblem, bool], float | None]) -> bool:
    """Whether all phases of a gradient of the input take less at once than one by one (see `phases_at_once`), once packed."""
    at_once, one_by_one = joined_seconds(p, joined, True, of_image), seconds(p, algorithm, parts, True, of_image)
    return at_once is not None and one_by_one is not None and at_once < one_by_one


def _image_bytes(p: ConvProblem) -> int:
    return p.in_channels * math.prod(p.input_size) * TABLE[p.dtype].itemsize


def seconds(p: ConvProblem, algorithm: str, parts: tuple[Part, ...], prepared: bool,
            of_image: Callable[[ConvProblem, bool], float | None]) -> float | None:
    """Estimated time of one image; of a gradient of the weight, of all images, which it sums; None: there is no estimate.

    Args:
        of_image: estimates one image of a forward problem, with weights that are packed beforehand or not.
    """
    of_weight = p.direction == "backward_weight"
    total = -_CALLED
    for each, often in forward_problems(p, algorithm, parts):
        one = (_of_weight(each, algorithm, prepared, of_image) if of_weight
               else _of_input(p, each, prepared, of_image, algorithm))
        if one is None:
            return None
        total += often * (one + _CALLED)
    if of_weight:
        products, elements = as_products(p, algorithm), math.prod(p.input_shape) + math.prod(p.output_shape)
        total += _BESIDE[products] + elements * ((_STRIDED if p.channels_last else 0) + (_COPIED if products else 0))
    if p.direction == "backward_input" and p.stride[-1] > 1 and not p.channels_last:
        total += _APART * _image_bytes(p)
    if not of_weight and any(part.problem is None for part in parts):
        total += _FILLED[0] + _FILLED[1] * _image_bytes(p)
    return total


def joined_seconds(p: ConvProblem, joined: ConvProblem, prepared: bool,
                   of_image: Callable[[ConvProblem, bool], float | None]) -> float | None:
    """The same of all phases at once."""
    one = _of_input(p, joined, prepared, of_image)
    return None if one is None else one + _CALLED + _PLACED * _image_bytes(p)


def _of_input(p: ConvProblem, each: ConvProblem, prepared: bool,
              of_image: Callable[[ConvProblem, bool], float | None], algorithm: str = "") -> float | None:
    packed = of_image(each, True)
    whole = packed if prepared else of_image(each, False)
    if packed is None or whole is None or prepared:
        return packed
    images, dearer = (_TRAINED, 1) if max(p.stride) == 1 else (_DECODED, 2)
    images = settings.current().expected_batch or images
    on_the_way = p.groups == 1 and packs_any_order(algorithm)
    arranged = _ARRANGED * dearer / (2 if on_the_way else 1) * math.prod(each.weight_shape)
    return packed + (whole - packed + arranged) / images


def _of_weight(each: ConvProblem, algorithm: str, prepared: bool,
               of_image: Callable[[ConvProblem, bool], float | None]) -> float | None:
    if algorithm == "fft":  # each image has tiles of its own
        alone = dataclasses.replace(each, batch=1)
        packed, whole = of_image(alone, True), of_image(alone, prepared)
        return None if packed is None or whole is None else whole + (each.batch - 1) * packed
    one = of_image(_as_one_image(each), prepared)
    if one is not None and algorithm == "winograd":
        return one * (1 + _FEW * max(each.input_size)) + each.groups * _TRANSFORM
    return one


@functools.lru_cache(maxsize=256)
def _as_one_image(p: ConvProblem) -> ConvProblem:
    """One image with as many rows as all images have: what estimates take for an image is there once."""
    if p.batch == 1:
        return p
    rows, extent = -(-p.output_size[0] // _TILE) * _TILE * p.batch, (p.kernel_size[0] - 1) * p.dilation[0] + 1
    size = max(1, (rows - 1) * p.stride[0] + extent - sum(p.padding[0]))
    return dataclasses.replace(p, batch=1, input_size=(size, *p.input_size[1:]))
