"""Drawn digits as the network wants them: MNIST's own preparation, and recorded drawings.

`static/prepare.js` does the same in the browser; a test holds the two together.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from mnist_cnn.browser import node

PAGE = Path(__file__).parent / "static"
STROKES = PAGE / "strokes.json"  # written by scripts/write_strokes.py
SIDE, FIT = 28, 20


def prepare(ink: np.ndarray) -> np.ndarray:
    """Ink in 0..1 on empty ground 0, (height, width), as float32 (28, 28), the brightest 1.

    Crop, fit the longer side into 20 pixels by area averaging, place by centre of mass: what
    the makers of MNIST did (LeCun et al. 1998). Raises ValueError if there is no ink.
    """
    if not (ink > 0).any():
        raise ValueError("there is no ink")
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    cropped = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float64)
    scale = FIT / max(cropped.shape)
    height, width = (max(1, int(side * scale + 0.5)) for side in cropped.shape)
    small = _shares(cropped.shape[0], height) @ cropped @ _shares(cropped.shape[1], width).T

    mass = small.sum()
    down = (small.sum(axis=1) * np.arange(height)).sum() / mass
    across = (small.sum(axis=0) * np.arange(width)).sum() / mass
    top = int(np.clip(np.floor(SIDE / 2 - down + 0.5), 0, SIDE - height))
    left = int(np.clip(np.floor(SIDE / 2 - across + 0.5), 0, SIDE - width))
    picture = np.zeros((SIDE, SIDE), np.float32)
    picture[top : top + height, left : left + width] = small / small.max()
    return picture


def _shares(before: int, after: int) -> np.ndarray:
    """(after, before): how much of each new pixel every old one is."""
    step = before / after
    low = np.arange(after)[:, None] * step
    old = np.arange(before)[None, :]
    covered = np.minimum(low + step, old + 1) - np.maximum(low, old)
    return np.clip(covered, 0, None) / step


def recorded() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The recorded drawings through the page's own JavaScript.

    Pictures with the preparation and with mere shrinking, float32 (n, 28, 28, 1), and labels (n,).
    """
    labels = np.array([drawing["digit"] for drawing in json.loads(STROKES.read_text())])
    with tempfile.TemporaryDirectory() as scratch:
        node.run(PAGE / "replay.mjs", str(STROKES), f"{scratch}/out")
        prepared, shrunk = (
            np.fromfile(f"{scratch}/out.{name}.f32", "<f4").reshape(-1, SIDE, SIDE, 1)
            for name in ("prepared", "shrunk")
        )
    return prepared, shrunk, labels
