"""Max, average, minimum and L2 pooling of a map of 4 x 4, and global pooling.

    python examples/poolings.py

Windows of 2 x 2, two apart: of every four numbers one is left.
"""

from __future__ import annotations

import numpy as np

import fastconv

MAP = np.array([[1, 3, 2, 1], [4, 6, 5, 0], [7, 2, 8, 3], [1, 0, 4, 9]], np.float32)


def main() -> None:
    x = MAP[None]
    highest, where = fastconv.max_pool2d(x, 2, return_indices=True)
    pooled = {
        "max": highest, "average": fastconv.avg_pool2d(x, 2), "minimum": fastconv.min_pool2d(x, 2),
        "L2 norm": fastconv.lp_pool2d(x, 2, 2), "3 x 3, one apart": fastconv.max_pool2d(x, 3, 1),
        "unpooled max": fastconv.max_unpool2d(highest, where, 2), "gradient of max": fastconv.max_pool2d_input(
            np.ones_like(highest), x, 2), "gradient of average": fastconv.avg_pool2d_input(np.ones_like(highest), x, 2),
    }
    show("the map", MAP)
    for name, values in pooled.items():
        show(name, values[0])
    print(f"global max {fastconv.global_max_pool(MAP[None, None]).item():g}, "
          f"global average {fastconv.global_avg_pool(MAP[None, None]).item():g}")


def show(name: str, values: np.ndarray) -> None:
    print(f"{name}:")
    print("\n".join("  " + " ".join(f"{value:>6.4g}" for value in row) for row in values))


if __name__ == "__main__":
    main()
