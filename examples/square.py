"""Two layers of hand-made filters: the first finds corners, the second the square that they make.

    python examples/square.py

The first layer has a filter for each kind of corner, and ReLU keeps what is a corner and drops what is less. The second layer
sees four maps of corners: its filter adds up the four of a square of 6 x 6, wherever that is.
"""

from __future__ import annotations

import numpy as np

from fastconv import nn

PICTURE = """
. . . . . . . . . . . . . . . .
. . . . . . . . . . . . . . . .
. # # # # # # . . . . # . . . .
. # . . . . # . . . . # . . . .
. # . . . . # . . . . # . . . .
. # . . . . # . . # # # # # # .
. # . . . . # . . . . # . . . .
. # # # # # # . . . . # . . . .
. . . . . . . . . . . . . . . .
"""
UPPER_LEFT = np.array([[-1, -1, -1], [-1, 1, 1], [-1, 1, -1]], np.float32)
SIZE = 6


def main() -> None:
    image = np.array([[letter == "#" for letter in line.split()] for line in PICTURE.strip().splitlines()], np.float32)
    corners = nn.Conv2d(1, 4, 3, padding=1)
    corners.weight.data = [[np.rot90(UPPER_LEFT, -turn)] for turn in range(4)]  # clockwise from the upper left
    corners.bias.data = np.full(4, -2)  # a corner gives 3, a straight line at most 1
    square = nn.Conv2d(4, 1, SIZE)
    weight = np.zeros((1, 4, SIZE, SIZE))
    for kind, (row, column) in enumerate([(0, 0), (0, -1), (-1, -1), (-1, 0)]):
        weight[0, kind, row, column] = 1
    square.weight.data, square.bias.data = weight, [-3]  # four corners give 1, three 0
    model = nn.Sequential(corners, nn.ReLU(), square, nn.ReLU()).eval()

    found = model(image[None, None])[0, 0]
    maps = nn.Sequential(corners, nn.ReLU())(image[None, None])[0]
    print("the picture:\n" + text(image))
    print()
    for name, each in zip(("upper left", "upper right", "lower right", "lower left"), maps):
        print(f"{f'corners, {name}:':<22} {places(each)}")
    print(f"\nsquares of {SIZE} x {SIZE}, by their upper left corners:  {places(found)}")
    print("\nwhat the second layer gives:\n" + text(found))


def places(values: np.ndarray) -> str:
    return ", ".join(f"row {row}, column {column}" for row, column in np.argwhere(values > 0)) or "none"


def text(values: np.ndarray) -> str:
    return "\n".join(" ".join("#" if value > 0 else "." for value in row) for row in values)


if __name__ == "__main__":
    main()
