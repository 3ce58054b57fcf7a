"""Preparation of strokes in Python: what prepare.js of the page is compared with."""

from collections.abc import Sequence

import numpy as np

from mnist_cnn.learning.handwriting import render

STEP = 0.01  # of the longer side: points nearer than this to the last one are left out
TAP = 0.1  # of the longer side of the largest stroke: a stroke below this is a tap
ASIDE = 0.35  # likewise: a tap further than this from the others is left out


def prepare(strokes: Sequence[Sequence[Sequence[float]]]) -> np.ndarray:
    """Picture float32 (28, 28) in [0, 1] of strokes of points (x, y), in units of the pad's side.

    Scaled into 20 pixels and placed by centre of mass, as MNIST's makers did (LeCun et al. 1998),
    but from vectors: the line is PEN wide whatever pen drew it. Raises ValueError without a point.
    """
    lines = _cleaned([np.asarray(points, np.float64) for points in strokes if len(points)])
    # A dot is a line of no length.
    lines = [np.repeat(line, 2, axis=0) if len(line) == 1 else line for line in lines]
    segments = np.concatenate([np.stack([line[:-1], line[1:]], axis=1) for line in lines])
    return render(segments, np.zeros(len(segments), int))[0]


def _cleaned(lines: list[np.ndarray]) -> list[np.ndarray]:
    """Lines without taps that fell beside the digit and without points on the spot."""
    if not lines:
        raise ValueError("there is no ink")
    sizes = np.array([np.ptp(line, axis=0).max() for line in lines])
    taps = sizes < TAP * sizes.max()
    main = np.concatenate([line for line, tap in zip(lines, taps, strict=True) if not tap])

    def aside(line: np.ndarray) -> bool:
        gap = np.maximum(line.min(axis=0) - main.max(axis=0), main.min(axis=0) - line.max(axis=0))
        return bool(np.hypot(*gap.clip(0)) > ASIDE * sizes.max())

    kept = [line for line, tap in zip(lines, taps, strict=True) if not (tap and aside(line))]
    step = STEP * np.ptp(np.concatenate(kept), axis=0).max()
    thinned = []
    for line in kept:
        chosen = [line[0]]
        for point in line[1:]:
            if np.hypot(*(point - chosen[-1])) > step:
                chosen.append(point)
        thinned.append(np.array(chosen))
    return thinned
