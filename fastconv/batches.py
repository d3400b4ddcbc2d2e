"""Batches, and what augments them: plain functions of images (N, C, H, W) and a generator."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def batches(images: np.ndarray, targets: np.ndarray, size: int,
            rng: np.random.Generator | None = None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(images, targets), `size` at a time, the last ones fewer; shuffled, if there is a generator to do it."""
    order = np.arange(len(images)) if rng is None else rng.permutation(len(images))
    for begin in range(0, len(order), size):
        chosen = order[begin:begin + size]
        yield images[chosen], targets[chosen]


def shift(images: np.ndarray, rng: np.random.Generator, most: int = 2) -> np.ndarray:
    """Each moved by up to `most` pixels along both axes; what moves in is 0."""
    return crop(np.pad(images, ((0, 0), (0, 0), (most, most), (most, most))), rng, *images.shape[2:])


def flip(images: np.ndarray, rng: np.random.Generator, probability: float = 0.5) -> np.ndarray:
    """Some of them mirrored, left to right."""
    mirrored = rng.random(len(images)) < probability
    return np.where(mirrored[:, None, None, None], images[..., ::-1], images)


def crop(images: np.ndarray, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A part of each, of this size."""
    if height > images.shape[2] or width > images.shape[3]:
        raise ValueError(f"height and width must be at most the images' {images.shape[2:]}, got {(height, width)}")
    windows = np.lib.stride_tricks.sliding_window_view(images, (height, width), axis=(2, 3))
    rows, columns = (rng.integers(0, room, len(images)) for room in windows.shape[2:4])
    return windows[np.arange(len(images)), :, rows, columns]


def noise(images: np.ndarray, rng: np.random.Generator, deviation: float = 0.05) -> np.ndarray:
    """Normal noise added."""
    return images + deviation * rng.standard_normal(images.shape, np.float32).astype(images.dtype)
