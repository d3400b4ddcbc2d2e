"""An image of 32 x 32 x 3 under filters of 5 x 5: what comes out has 28 x 28 places for each of them.

    python examples/volume.py

A filter of 5 x 5 x 3 is 75 weights and a bias, the same at every place; it fits into 28 x 28 places of the image, and each
gives one number. More filters make the volume deeper, padding keeps its size, and a second layer's filters are as deep as the
first one's volume.
"""

from __future__ import annotations

import numpy as np

from fastconv import nn


def main() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((1, 3, 32, 32), np.float32)
    one = nn.Conv2d(3, 1, 5, rng=rng)
    six = nn.Conv2d(3, 6, 5, rng=rng)
    padded = nn.Conv2d(3, 6, 5, padding=2, rng=rng)
    second = nn.Conv2d(6, 10, 5, rng=rng)
    print(f"{'layer':<46} {'input':<14} {'output':<14} parameters")
    show("one filter of 5 x 5 x 3", one, image)
    volume = show("six filters of 5 x 5 x 3", six, image)
    show("six filters, padded by 2", padded, image)
    show("ten filters of 5 x 5 x 6, on the six's volume", second, volume)
    at = image[0, :, 10:15, 20:25]
    print(f"\nthe number at (10, 20) is the sum of 75 products and a bias: "
          f"{float((at * one.weight.data[0]).sum() + one.bias.data[0]):.4f} = {float(one(image)[0, 0, 10, 20]):.4f}")


def show(name: str, layer: nn.Conv2d, volume: np.ndarray) -> np.ndarray:
    made = layer(volume)
    count = sum(parameter.size for parameter in layer.parameters())
    print(f"{name:<46} {size(volume):<14} {size(made):<14} {count:,}")
    return made


def size(volume: np.ndarray) -> str:
    _, depth, height, width = volume.shape
    return f"{height} x {width} x {depth}"


if __name__ == "__main__":
    main()
