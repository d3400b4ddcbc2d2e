"""LeNet learns to read handwritten digits, from nothing, in some ten seconds.

    python examples/digits.py [--epochs 60]

The digits are scikit-learn's, 1,797 scans of 8 x 8 pixels; a third is held out. At the end: how many of each digit it reads,
and which it takes for another. `fastconv demo digits` draws what it has learnt.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from sklearn.datasets import load_digits

from fastconv import nn
from fastconv.batches import shift
from fastconv.nn import models


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--epochs", type=int, default=60, help="passes over the digits (default: 60)")
    epochs = parser.parse_args().epochs
    images, targets = digits()
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[len(order) // 3:], order[:len(order) // 3]

    model = models.lenet5(activation=nn.ReLU, pooling=nn.MaxPool2d, dropout=0.3, rng=np.random.default_rng(0))
    print(model.summary((1, 1, 32, 32)))
    optimizer = nn.AdamW(model.parameters(), 2e-3)
    history = nn.fit(model, nn.CrossEntropyLoss(), optimizer, images[train], targets[train], epochs=epochs, batch_size=64,
                     augment=lambda batch, rng: shift(batch, rng, 3), schedule=nn.CosineAnnealingLR(optimizer, epochs))
    print(f"\n{len(train):,} digits, {epochs} epochs, {sum(history['seconds']):.1f} s")

    read = model(images[test]).argmax(1)
    print("\ndigit  read  of  taken for")
    for digit in range(10):
        mine = targets[test] == digit
        wrong = read[mine & (read != digit)]
        others = ", ".join(f"{other} ({count} x)" for other, count in Counter(wrong.tolist()).most_common())
        print(f"{digit:>5}  {np.sum(mine & (read == digit)):>4}  {mine.sum():>2}  {others}".rstrip())
    print(f"\n{np.mean(read == targets[test]):.2%} of {len(test)} held-out digits read correctly")


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 1, 32, 32) between 0 and 1: three times as large as they were, smoothed, in a black frame."""
    found = load_digits()
    large = (found.images / 16).astype(np.float32).repeat(3, 1).repeat(3, 2)[:, None]
    return np.pad(nn.functional.avg_pool2d(large, 3, 1, 1), ((0, 0), (0, 0), (4, 4), (4, 4))), found.target


if __name__ == "__main__":
    main()
