"""Corrupted digits, seeded: the fifteen kinds of MNIST-C at five strengths, and five of our own.

MNIST-C (Mu and Gilmer 2019, arXiv 1906.02337; code google-research/mnist-c) corrupts one image at a
time; here each kind takes float64 images (n, 28, 28) in [0, 1] together, its level at a strength
from 1 to 5, and a random generator. The numbers are the published ones; where MNIST-C has only one
strength (stripe, dotted line, zigzag, canny edges) the others are ours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.random import Generator
from scipy import ndimage
from skimage.feature import canny
from skimage.util import random_noise

SIZE = 28
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]


@dataclass(frozen=True)
class Corruption:
    """One corruption: its function, the levels of its five strengths, the published strength."""

    function: Callable[[np.ndarray, Any, Generator], np.ndarray]
    levels: Sequence[Any]
    published: int
    in_mnist_c: bool = True
    unseen_in_training: bool = False  # neither `distort` nor `disturb` shows anything like it


def corrupted(name: str, images: np.ndarray, strength: int | None = None) -> np.ndarray:
    """Images uint8 (n, 28, 28, 1) corrupted, of the same type; None is the published strength.

    The same images, corruption and strength (1 to 5) give the same result. Raises KeyError for a
    name that is not in CORRUPTIONS.
    """
    chosen = CORRUPTIONS[name]
    strength = strength or chosen.published
    rng = np.random.default_rng([*name.encode(), strength])
    bad = chosen.function(images[..., 0] / 255.0, chosen.levels[strength - 1], rng)
    return np.rint(255 * np.clip(bad, 0, 1)).astype(np.uint8)[..., None]


def _fog(x: np.ndarray, level: tuple[float, float], rng: Generator) -> np.ndarray:
    thick, decay = level
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
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return heights[:, :SIZE, :SIZE] / heights.max(axis=(1, 2), keepdims=True)


def _blurred(x: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(x, (0, sigma, sigma), mode="nearest")


def _glass_blur(x: np.ndarray, level: tuple[float, int, int], rng: Generator) -> np.ndarray:
    sigma, reach, times = level
    x = np.floor(255 * _blurred(x, sigma)) / 255
    every = np.arange(len(x))
    places = range(SIZE - reach, reach, -1)
    for row, column in [(row, column) for row in places for column in places] * times:
        down, right = rng.integers(-reach, reach, (2, len(x)))
        swap = rng.random(len(x)) < 0.5
        # A swap with itself is none.
        there = (every, row + down * swap, column + right * swap)
        here = x[:, row, column].copy()
        x[:, row, column] = x[there]
        x[there] = here
    return _blurred(x, sigma)


def _motion_blur(x: np.ndarray, level: tuple[int, int], rng: Generator) -> np.ndarray:
    """As ImageMagick does it: half a Gaussian along a line, at whole pixels."""
    radius, sigma = level
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    angle = np.radians(rng.uniform(-45, 45, (len(x), 1, 1)))
    total = np.zeros_like(x)
    for step, weight in enumerate(weights / weights.sum()):
        down, right = (np.ceil(step * f(angle) - 0.5).astype(int) for f in (np.sin, np.cos))
        at = (np.clip(c, 0, SIZE - 1) for c in (ROWS + down, COLUMNS + right))
        total += weight * x[(np.arange(len(x))[:, None, None], *at)]
    return total


def _warped(x: np.ndarray, matrices: np.ndarray, moved: np.ndarray | float = 0.0) -> np.ndarray:
    """Bilinear: the pixel at p comes from matrix (p - centre) + centre + moved; 0 outside.

    `matrices` is (n, 2, 2) or (2, 2), `moved` (n, 2) or a number, both in the order down, across.
    """
    matrices = np.broadcast_to(matrices, (len(x), 2, 2))
    offsets = (SIZE - 1) / 2 * (1 - matrices.sum(axis=2)) + moved
    warps = zip(x, matrices, offsets, strict=True)
    return np.stack(
        [ndimage.affine_transform(*warp, order=1, mode="grid-constant") for warp in warps]
    )


def _shear(x: np.ndarray, angle: float, rng: Generator) -> np.ndarray:
    # scikit-image's shear of 2019: an angle, so that height shrinks by its cosine.
    sheared = [[[np.cos(a), 0], [-np.sin(a), 1]] for a in (angle, -angle)]
    return _warped(x, rng.choice(sheared[::-1], len(x)))


def _rotate(x: np.ndarray, angle: float, rng: Generator) -> np.ndarray:
    turned = [[[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]] for a in (angle, -angle)]
    return _warped(x, rng.choice(turned[::-1], len(x)))


def _stripe(x: np.ndarray, width: int, rng: Generator) -> np.ndarray:
    at_the_sides = abs(np.arange(SIZE) - (SIZE - 1) / 2) >= SIZE / 2 - width
    return np.where(at_the_sides, 1 - x, x)


def _spatter(x: np.ndarray, level: tuple[float, ...], rng: Generator) -> np.ndarray:
    mean, sd, sigma, least, soft = level
    liquid = _blurred(rng.normal(mean, sd, x.shape), sigma)
    mud = _blurred((liquid > least).astype(float), soft)
    mud[mud < 0.8] = 0
    return x * (1 - mud) + 63 / 255 * mud


def _line(column0: float, row0: float, column1: float, row1: float) -> np.ndarray:
    """A soft line (28, 28) between two points; none if it is upright."""
    if column0 == column1:
        return np.zeros((SIZE, SIZE))
    slope = (row1 - row0) / (column1 - column0)
    distance = np.minimum(np.abs(ROWS - slope * (COLUMNS - column0) - row0), 2.3 - 1e-10)
    line = np.clip(np.log(1 - distance / 2.3) + 1, 0, 1)
    line[:, : max(0, int(np.floor(column0)))] = 0
    line[:, max(0, int(np.ceil(column1))) :] = 0
    return line


def _dotted_line(x: np.ndarray, count: int, rng: Generator) -> np.ndarray:
    rows = rng.integers(27, size=(len(x), count, 2))
    lines = [sum(_line(0, left, 27, right) for left, right in some) for some in rows]
    return x + np.array(lines) * (np.arange(SIZE) // 2 % 2)


def _zigzag(x: np.ndarray, count: int, rng: Generator) -> np.ndarray:
    def zigzag() -> np.ndarray:
        length, left, right, row = 2, 2, 25, rng.integers(27)
        angle = np.arctan(rng.integers(-5, 5) / (right - left))
        whole = (right - left) / np.cos(angle)
        turns = int((whole - length) // (2 * length)) + 1
        points = [(0.0, 0.0)]
        points += [((2 * i + 1) * length, 2.0 * (-1) ** i) for i in range(turns)]
        rest = whole - 2 * length * (whole // (2 * length))
        if rest:
            points.append((whole, points[-1][1] / (2 * rest)))
        cos, sin = np.cos(angle), np.sin(angle)
        ends = [(cos * c - sin * r + left, sin * c + cos * r + row) for c, r in points]
        return np.sum([_line(*a, *b) for a, b in pairwise(ends)], axis=0)

    # The published code takes pixels of 0 to 255 here and clips them at 1: any ink becomes full.
    return np.ceil(x) + [sum(zigzag() for _ in range(count)) for _ in x]


def _thickness(x: np.ndarray, share: float, rng: Generator) -> np.ndarray:
    """Thicker or thinner strokes: grey dilation of half of the images, erosion of the others."""
    thick, thin = ndimage.grey_dilation(x, (1, 3, 3)), ndimage.grey_erosion(x, (1, 2, 2))
    return x + share * (np.where(rng.choice([-1, 1], (len(x), 1, 1)) > 0, thick, thin) - x)


def _elastic(x: np.ndarray, sd: float, rng: Generator) -> np.ndarray:
    """A smooth field moves each pixel; sigma 4 as in Simard et al. 2003."""
    field = ndimage.gaussian_filter(rng.uniform(-1, 1, (2, *x.shape)), (0, 0, 4, 4))
    field *= sd / field.std()
    at = np.mgrid[: len(x), :SIZE, :SIZE].astype(float)
    at[1:] += field
    return ndimage.map_coordinates(x, at, order=1)


def _occlusion(x: np.ndarray, side: int, rng: Generator) -> np.ndarray:
    """A black square somewhere over the digit's 20 x 20 box."""
    top, left = rng.integers(4, 24 - side + 1, (2, len(x), 1, 1))
    covered = (top <= ROWS) & (top + side > ROWS) & (left <= COLUMNS) & (left + side > COLUMNS)
    return np.where(covered, 0, x)


def _low_resolution(x: np.ndarray, factor: float, rng: Generator) -> np.ndarray:
    """Shrunk to fewer pixels and enlarged again."""
    small = ndimage.zoom(_blurred(x, 0.4 / factor), (1, factor, factor), order=1)
    back = SIZE / small.shape[1]
    return ndimage.zoom(small, (1, back, back), order=1)


FIFTHS = [strength / 5 for strength in range(1, 6)]
ANGLES = [0.2 * strength for strength in range(1, 6)]  # radians
GLASS = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))  # sigma, reach, times
MOTION = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))  # radius, sigma
FOG = ((1.5, 2), (2.0, 2), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))  # thickness, decay
SPATTER = (  # mean and sd of the liquid, its blur, its least height, blur of the mud
    *((0.65, 0.3, 4, 0.69, 0.6), (0.65, 0.3, 3, 0.68, 0.6), (0.65, 0.3, 2, 0.68, 0.5)),
    *((0.65, 0.3, 1, 0.65, 1.5), (0.67, 0.4, 1, 0.65, 1.5)),
)
OURS, UNSEEN = {"in_mnist_c": False}, {"unseen_in_training": True}
CORRUPTIONS = {
    "shot_noise": Corruption(lambda x, n, rng: rng.poisson(x * n) / n, (60, 25, 12, 5, 3), 5),
    "impulse_noise": Corruption(
        lambda x, share, rng: random_noise(x, "s&p", rng=rng, amount=share),
        (0.03, 0.06, 0.09, 0.17, 0.27),
        4,
    ),
    "glass_blur": Corruption(_glass_blur, GLASS, 1),
    "motion_blur": Corruption(_motion_blur, MOTION, 1),
    "shear": Corruption(_shear, ANGLES, 2),
    "scale": Corruption(lambda x, by, _: _warped(x, np.eye(2) / by), (0.9, 0.8, 0.7, 0.6, 0.5), 3),
    "rotate": Corruption(_rotate, ANGLES, 2),
    "brightness": Corruption(lambda x, more, _: x + more, (0.1, 0.2, 0.3, 0.4, 0.5), 5),
    "translate": Corruption(
        lambda x, n, rng: _warped(x, np.eye(2), n * rng.choice([-1, 1], (len(x), 2))[:, ::-1]),
        range(1, 6),
        3,
    ),
    "stripe": Corruption(_stripe, (3, 4, 5, 6, 7), 5),
    "fog": Corruption(_fog, FOG, 5, **UNSEEN),
    "spatter": Corruption(_spatter, SPATTER, 4, **UNSEEN),
    "dotted_line": Corruption(_dotted_line, range(1, 6), 1),
    "zigzag": Corruption(_zigzag, range(1, 6), 1),
    "canny_edges": Corruption(
        lambda x, sigma, _: np.stack([canny(image, sigma) for image in x]).astype(float),
        (0.25, 0.5, 1.0, 1.25, 1.5),
        3,
    ),
    "thickness": Corruption(_thickness, FIFTHS, 3, **OURS, **UNSEEN),
    "elastic": Corruption(_elastic, (0.5, 1.0, 1.5, 2.0, 2.5), 3, **OURS),
    "occlusion": Corruption(_occlusion, (4, 6, 8, 10, 12), 3, **OURS),
    "low_resolution": Corruption(_low_resolution, (0.8, 0.65, 0.5, 0.4, 0.3), 3, **OURS),
    # Towards the negative: at 5 black on white.
    "inversion": Corruption(
        lambda x, share, _: (1 - share) * x + share * (1 - x), FIFTHS, 5, **OURS
    ),
}
