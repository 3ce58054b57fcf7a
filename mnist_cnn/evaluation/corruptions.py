"""Corrupted digits, seeded: the fifteen kinds of MNIST-C at five strengths, and five of our own.

MNIST-C (Mu and Gilmer 2019, arXiv 1906.02337; code google-research/mnist-c) corrupts one image at a
time; here each kind takes float64 images (n, 28, 28) in [0, 1] together, a strength from 1 to 5 and
a random generator. The numbers are the published ones; where MNIST-C has only one strength
(stripe, dotted line, zigzag, canny edges) the others are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from scipy import ndimage
from skimage.feature import canny
from skimage.util import random_noise

SIZE = 28
Corrupt = Callable[[np.ndarray, int, Generator], np.ndarray]


@dataclass(frozen=True)
class Corruption:
    """One corruption: its function, the published strength, and whether MNIST-C has it."""

    function: Corrupt
    published: int
    in_mnist_c: bool = True
    unseen_in_training: bool = False  # neither `distort` nor `disturb` shows anything like it


def corrupted(name: str, images: np.ndarray, strength: int | None = None) -> np.ndarray:
    """Images uint8 (n, 28, 28, 1) corrupted, of the same type; None is the published strength.

    The same images, corruption and strength (1 to 5) give the same result. Raises KeyError for a
    name that is not in CORRUPTIONS.
    """
    chosen = CORRUPTIONS[name]
    rng = np.random.default_rng([*name.encode(), strength or chosen.published])
    bad = chosen.function(images[..., 0] / 255.0, strength or chosen.published, rng)
    return np.rint(255 * np.clip(bad, 0, 1)).astype(np.uint8)[..., None]


def _shot_noise(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    photons = (60, 25, 12, 5, 3)[strength - 1]
    return rng.poisson(x * photons) / photons


def _impulse_noise(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    amount = (0.03, 0.06, 0.09, 0.17, 0.27)[strength - 1]
    return random_noise(x, "s&p", rng=rng, amount=amount)


def _brightness(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    return x + strength / 10


def _fog(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    thick, decay = ((1.5, 2), (2.0, 2), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))[strength - 1]
    light = x.max(axis=(1, 2), keepdims=True)
    # A few at once: their maps stay in the processor's cache, and take half the time.
    parts = np.array_split(x, -(-len(x) // 20))
    fog = np.concatenate([_plasma(len(part), decay, rng) for part in parts])
    return (x + thick * fog) * light / (light + thick)


def _plasma(count: int, decay: float, rng: Generator) -> np.ndarray:
    """Height maps (count, 28, 28) in [0, 1], cut from toroidal diamond-square maps of 256 x 256."""
    side = step = 256
    heights = np.zeros((count, side, side), np.float32)
    wibble = 100.0

    def rough(total: np.ndarray) -> np.ndarray:
        return total / 4 + wibble**2 * rng.uniform(-1, 1, total.shape)

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        rows = corners + np.roll(corners, -1, 1)
        heights[:, half::step, half::step] = rough(rows + np.roll(rows, -1, 2))

        middles = heights[:, half::step, half::step]
        corners = heights[:, ::step, ::step]
        beside = middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 2)
        heights[:, ::step, half::step] = rough(beside)
        above = middles + np.roll(middles, 1, 2) + corners + np.roll(corners, -1, 1)
        heights[:, half::step, ::step] = rough(above)
        step //= 2
        wibble /= decay
    low, high = (f(heights, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    return ((heights - low) / (high - low))[:, :SIZE, :SIZE]


def _blurred(x: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(x, (0, sigma, sigma), mode="nearest")


def _glass_blur(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    sigma, reach, times = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[
        strength - 1
    ]
    x = np.floor(255 * _blurred(x, sigma)) / 255
    every = np.arange(len(x))
    for _ in range(times):
        for row in range(SIZE - reach, reach, -1):
            for column in range(SIZE - reach, reach, -1):
                down, right = rng.integers(-reach, reach, (2, len(x)))
                swap = rng.random(len(x)) < 0.5
                # A swap with itself is none.
                there = (every, row + down * swap, column + right * swap)
                here = x[:, row, column].copy()
                x[:, row, column] = x[there]
                x[there] = here
    return _blurred(x, sigma)


def _motion_blur(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    """As ImageMagick does it: half a Gaussian along a line, at whole pixels."""
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[strength - 1]
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    angle = np.radians(rng.uniform(-45, 45, len(x)))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    every = np.arange(len(x))[:, None, None]
    total = np.zeros_like(x)
    for step, weight in zip(steps, weights / weights.sum(), strict=True):
        down, right = (
            np.ceil(step * f(angle) - 0.5).astype(int)[:, None, None] for f in (np.sin, np.cos)
        )
        at = (np.clip(c, 0, SIZE - 1) for c in (rows + down, columns + right))
        total += weight * x[(every, *at)]
    return total


def _warped(x: np.ndarray, matrices: np.ndarray, moved: np.ndarray | float = 0.0) -> np.ndarray:
    """Bilinear: the pixel at p comes from matrix (p - centre) + centre + moved; 0 outside.

    `matrices` is (n, 2, 2) or (2, 2), `moved` (n, 2) or a number, both in the order down, across.
    """
    matrices = np.broadcast_to(matrices, (len(x), 2, 2))
    centre = (SIZE - 1) / 2
    offsets = centre * (1 - matrices.sum(axis=2)) + moved
    warps = zip(x, matrices, offsets, strict=True)
    return np.stack(
        [ndimage.affine_transform(*warp, order=1, mode="grid-constant") for warp in warps]
    )


def _shear(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    angle = 0.2 * strength * rng.choice([-1, 1], len(x))
    # scikit-image's shear of 2019: an angle, so that height shrinks by its cosine.
    rows = [np.cos(angle), 0 * angle, -np.sin(angle), np.ones_like(angle)]
    return _warped(x, np.stack(rows, axis=1).reshape(-1, 2, 2))


def _rotate(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    angle = 0.2 * strength * rng.choice([-1, 1], len(x))
    rows = [np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle)]
    return _warped(x, np.stack(rows, axis=1).reshape(-1, 2, 2))


def _scale(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    return _warped(x, np.eye(2) / (1 - 0.1 * strength))


def _translate(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    return _warped(x, np.eye(2), strength * rng.choice([-1, 1], (len(x), 2))[:, ::-1])


def _stripe(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    width = (3, 4, 5, 6, 7)[strength - 1]
    x = x.copy()
    for part in (np.s_[:, :, :width], np.s_[:, :, SIZE - width :]):
        x[part] = 1 - x[part]
    return x


def _spatter(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    mean, sd = (0.67, 0.4) if strength == 5 else (0.65, 0.3)
    sigma, least = ((4, 0.69), (3, 0.68), (2, 0.68), (1, 0.65), (1, 0.65))[strength - 1]
    soft = (0.6, 0.6, 0.5, 1.5, 1.5)[strength - 1]
    liquid = _blurred(rng.normal(mean, sd, x.shape), sigma)
    mud = _blurred((liquid > least).astype(float), soft)
    mud[mud < 0.8] = 0
    return x * (1 - mud) + 63 / 255 * mud


def _line(column0: float, row0: float, column1: float, row1: float) -> np.ndarray:
    """A soft line (28, 28) between two points; none if it is upright."""
    if column0 == column1:
        return np.zeros((SIZE, SIZE))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    slope = (row1 - row0) / (column1 - column0)
    distance = np.minimum(np.abs(rows - slope * (columns - column0) - row0), 2.3 - 1e-10)
    line = np.clip(np.log(1 - distance / 2.3) + 1, 0, 1)
    line[:, : max(0, int(np.floor(column0)))] = 0
    line[:, max(0, int(np.ceil(column1))) :] = 0
    return line


def _dotted_line(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    def dotted() -> np.ndarray:
        line = _line(0, float(rng.integers(27)), 27, float(rng.integers(27)))
        line[:, np.arange(SIZE) // 2 % 2 == 0] = 0
        return line

    return x + [sum(dotted() for _ in range(strength)) for _ in x]


def _zigzag(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    length = width = 2.0

    def zigzag() -> np.ndarray:
        left, right, row = 2, 25, rng.integers(27)
        angle = np.arctan(rng.integers(-5, 5) / (right - left))
        whole = (right - left) / np.cos(angle)
        count = int((whole - length) // (2 * length)) + 1
        points = [(0.0, 0.0)]
        points += [((2 * i + 1) * length, (-1) ** i * width) for i in range(count)]
        rest = whole - 2 * length * (whole // (2 * length))
        if rest:
            points.append((whole, points[-1][1] / (2 * rest)))
        cos, sin = np.cos(angle), np.sin(angle)
        ends = [(cos * c - sin * r + left, sin * c + cos * r + row) for c, r in points]
        return np.sum([_line(*a, *b) for a, b in pairwise(ends)], axis=0)

    # The published code takes pixels of 0 to 255 here and clips them at 1: any ink becomes full.
    return np.ceil(x) + [sum(zigzag() for _ in range(strength)) for _ in x]


def _canny_edges(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    sigma = (0.25, 0.5, 1.0, 1.25, 1.5)[strength - 1]
    return np.stack([canny(image, sigma) for image in x]).astype(float)


def _thickness(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    """Thicker or thinner strokes: grey dilation of half of the images, erosion of the others."""
    thick, thin = ndimage.grey_dilation(x, (1, 3, 3)), ndimage.grey_erosion(x, (1, 2, 2))
    changed = np.where(rng.choice([-1, 1], (len(x), 1, 1)) > 0, thick, thin)
    return x + strength / 5 * (changed - x)


def _elastic(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    """A smooth field moves each pixel; sigma 4 as in Simard et al. 2003; sd strength / 2."""
    field = ndimage.gaussian_filter(rng.uniform(-1, 1, (2, *x.shape)), (0, 0, 4, 4))
    field *= 0.5 * strength / field.std()
    index, rows, columns = np.mgrid[: len(x), :SIZE, :SIZE].astype(float)
    return ndimage.map_coordinates(x, [index, rows + field[0], columns + field[1]], order=1)


def _occlusion(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    """A black square somewhere over the digit's 20 x 20 box."""
    side = 2 + 2 * strength
    top, left = rng.integers(4, 24 - side + 1, (2, len(x), 1, 1))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    covered = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    return np.where(covered, 0, x)


def _low_resolution(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    """Shrunk to fewer pixels and enlarged again."""
    factor = (0.8, 0.65, 0.5, 0.4, 0.3)[strength - 1]
    small = ndimage.zoom(_blurred(x, 0.4 / factor), (1, factor, factor), order=1)
    back = SIZE / small.shape[1]
    return ndimage.zoom(small, (1, back, back), order=1)


def _inversion(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    """Towards the negative: at 5 black on white."""
    share = strength / 5
    return (1 - share) * x + share * (1 - x)


CORRUPTIONS = {
    "shot_noise": Corruption(_shot_noise, 5),
    "impulse_noise": Corruption(_impulse_noise, 4),
    "glass_blur": Corruption(_glass_blur, 1),
    "motion_blur": Corruption(_motion_blur, 1),
    "shear": Corruption(_shear, 2),
    "scale": Corruption(_scale, 3),
    "rotate": Corruption(_rotate, 2),
    "brightness": Corruption(_brightness, 5),
    "translate": Corruption(_translate, 3),
    "stripe": Corruption(_stripe, 5),
    "fog": Corruption(_fog, 5, unseen_in_training=True),
    "spatter": Corruption(_spatter, 4, unseen_in_training=True),
    "dotted_line": Corruption(_dotted_line, 1),
    "zigzag": Corruption(_zigzag, 1),
    "canny_edges": Corruption(_canny_edges, 3),
    "thickness": Corruption(_thickness, 3, in_mnist_c=False, unseen_in_training=True),
    "elastic": Corruption(_elastic, 3, in_mnist_c=False),
    "occlusion": Corruption(_occlusion, 3, in_mnist_c=False),
    "low_resolution": Corruption(_low_resolution, 3, in_mnist_c=False),
    "inversion": Corruption(_inversion, 5, in_mnist_c=False),
}
