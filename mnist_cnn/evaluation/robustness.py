"""Where a classifier is weak: corruptions, slices, behaviour, attacks. Knows no MLflow.

`Answer` is a classifier: images uint8 (n, 28, 28, 1) to probabilities float32 (n, 10).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import ndimage

from mnist_cnn.evaluation.corruptions import KINDS, corrupted
from mnist_cnn.evaluation.metrics import accuracy_interval, bootstrap_interval
from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.data import Split
from mnist_cnn.learning.model import scaled

Answer = Callable[[np.ndarray], np.ndarray]


def under_corruption(
    answer: Answer, images: Split, every_strength: bool
) -> dict[tuple[str, int], np.ndarray]:
    """Whether each image is read rightly, booleans (n,), by kind and strength of corruption."""
    return {
        (name, strength): answer(corrupted(name, images.x, strength)).argmax(1) == images.y
        for name, kind in KINDS.items()
        for strength in (range(1, 6) if every_strength else [kind.published])
    }


def robustness(right: dict[tuple[str, int], np.ndarray]) -> pd.DataFrame:
    """A row a corruption: kind, strength, published, accuracy, and its interval, low and high."""
    rows = []
    for (name, strength), mine in right.items():
        interval = accuracy_interval(int(mine.sum()), len(mine))
        published = strength == KINDS[name].published
        rows.append((name, strength, published, float(mine.mean()), *interval))
    return pd.DataFrame(rows, columns=["kind", "strength", "published", "accuracy", "low", "high"])


def robust_figures(right: dict[tuple[str, int], np.ndarray]) -> dict[str, float]:
    """`robust_accuracy`, the mean over MNIST-C's kinds at the published strength, and each kind.

    `robust_accuracy_unseen` leaves out the kinds that look like the distortions of training. The
    intervals of both resample images, each with its looks: one hard image is hard in most of them.
    """
    at = {name: right[name, kind.published] for name, kind in KINDS.items()}
    mnist_c = [name for name, kind in KINDS.items() if kind.in_mnist_c]
    unseen = [name for name in mnist_c if not KINDS[name].like_training]
    figures = {}
    for figure, names in (("robust_accuracy", mnist_c), ("robust_accuracy_unseen", unseen)):
        shares = np.mean([at[name] for name in names], axis=0)
        figures[figure] = float(shares.mean())
        figures[f"{figure}_low"], figures[f"{figure}_high"] = bootstrap_interval(np.mean, shares)
    return figures | {f"robust_{name}": float(mine.mean()) for name, mine in at.items()}


def slices(images: Split, right: np.ndarray) -> pd.DataFrame:
    """Accuracy with its 95 % interval of all images and of each of `thirds`.

    Columns slice, images, accuracy, low, high; the worst first.
    """
    rows = []
    for name, chosen in {"all": np.ones(len(right), bool), **thirds(images.x)}.items():
        mine = right[chosen]
        interval = accuracy_interval(int(mine.sum()), len(mine))
        rows.append((name, len(mine), float(mine.mean()), *interval))
    table = pd.DataFrame(rows, columns=["slice", "images", "accuracy", "low", "high"])
    return table.sort_values("accuracy", ignore_index=True)


def thirds(images: np.ndarray) -> dict[str, np.ndarray]:
    """Booleans (n,) by slice: thirds of the images by thickness, slant and size, none empty.

    An image without ink is in none of them.
    """
    found = {}
    for name, values in _measures(images).items():
        known = np.isfinite(values)
        if not known.any():
            continue
        bounds = [-np.inf, *np.quantile(values[known], [1 / 3, 2 / 3]), np.inf]
        for word, low, high in zip(_WORDS[name], bounds, bounds[1:], strict=False):
            found[word] = known & (values > low) & (values <= high)
    return {word: chosen for word, chosen in found.items() if chosen.any()}


_WORDS = {
    "thickness": ("thin strokes", "medium strokes", "thick strokes"),
    "slant": ("leaning left", "upright", "leaning right"),
    "size": ("small", "medium size", "large"),
}


def _measures(images: np.ndarray) -> dict[str, np.ndarray]:
    """Thickness, slant and size of each digit, float64 (n,); NaN where there is no ink."""
    x = images[..., 0] / 255.0
    ink = x.sum(axis=(1, 2))
    rows, columns = np.mgrid[:28, :28]
    with np.errstate(invalid="ignore", divide="ignore"):
        down, across = ((x * c).sum(axis=(1, 2)) / ink for c in (rows, columns))
        dy, dx = rows - down[:, None, None], columns - across[:, None, None]
        slant = -(x * dx * dy).sum(axis=(1, 2)) / (x * dy**2).sum(axis=(1, 2))
        # How far the ink is from its edge: 1 for a line of one pixel, more for a thick stroke.
        solid = x > 0.5
        depth = np.stack([ndimage.distance_transform_edt(image) for image in solid])
        thickness = depth.sum(axis=(1, 2)) / solid.sum(axis=(1, 2))
    size = np.where(ink > 0, solid.any(axis=1).sum(axis=1) * solid.any(axis=2).sum(axis=1), np.nan)
    return {"thickness": thickness, "slant": slant, "size": size.astype(float)}


def behaviour(answer: Answer, images: Split) -> dict[str, float]:
    """What any digit reader should do, in the way of CheckList (Ribeiro et al. 2020).

    - `shift_invariance`: share of answers that stay under all eight shifts by one pixel;
    - `thickness_invariance`: share that stay when strokes grow or shrink by half a pixel;
    - `noise_monotone`: share of steps of growing noise at which mean confidence does not rise;
    - `blank_confidence`, `noise_confidence`: of a blank image, and mean of images of pure noise.
    """
    x, before = images.x, answer(images.x).argmax(1)
    steps = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]
    stays = [answer(np.roll(x, step, (1, 2))).argmax(1) == before for step in steps]
    strokes = [
        answer(corrupted("thickness", x, strength)).argmax(1) == before for strength in (1, 2)
    ]

    rng = np.random.default_rng(0)
    noise = rng.normal(0, 255, x.shape)
    confidence = [
        answer(np.clip(x + scale * noise, 0, 255).astype(np.uint8)).max(1).mean()
        for scale in (0, 0.1, 0.2, 0.3, 0.4, 0.5)
    ]
    return {
        "shift_invariance": float(np.all(stays, axis=0).mean()),
        "thickness_invariance": float(np.all(strokes, axis=0).mean()),
        "noise_monotone": float((np.diff(confidence) <= 0).mean()),
        "blank_confidence": float(answer(np.zeros_like(x[:1])).max()),
        "noise_confidence": float(answer(rng.integers(0, 256, x.shape, np.uint8)).max(1).mean()),
    }


def attacks(network: keras.Model, images: Split) -> dict[str, float]:
    """Accuracy after attacks that know the network, from the Adversarial Robustness Toolbox.

    Every pixel may change by 0.3 of the range, MNIST's usual bound (Madry et al. 2018), which an
    ordinary network does not survive, and by 0.1 (`_0.1`). Each with its interval.

    - `fgsm_accuracy`: one step along the sign of the gradient (Goodfellow et al. 2015);
    - `pgd_accuracy`: 40 steps of 0.01 from a random start (Madry et al. 2018).
    """
    x = scaled(images.x)
    found = {}
    for epsilon, suffix in ((0.3, ""), (0.1, "_0.1")):
        for name, bad in adversarial(network, x, images.y, epsilon).items():
            guesses = network.predict(bad, batch_size=500, verbose=0).argmax(1)
            right, figure = int((guesses == images.y).sum()), f"{name}_accuracy{suffix}"
            found[figure] = right / len(images)
            found[f"{figure}_low"], found[f"{figure}_high"] = accuracy_interval(right, len(images))
    return found


def adversarial(
    network: keras.Model, x: np.ndarray, labels: np.ndarray, epsilon: float
) -> dict[str, np.ndarray]:
    """Images `x`, float32 in [0, 1], as `fgsm` and `pgd` change them by at most `epsilon` a pixel.

    The same twice: the random start of `pgd` is seeded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that PyTorch is not installed
        # Here, for it takes two seconds that the other parts need not spend.
        from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescentTensorFlowV2
        from art.estimators.classification import TensorFlowV2Classifier

    classifier = TensorFlowV2Classifier(
        model=network,
        nb_classes=10,
        input_shape=(28, 28, 1),
        # Keras takes it from the logits, so a network that is sure has a gradient still.
        loss_object=keras.losses.CategoricalCrossentropy(),
        clip_values=(0.0, 1.0),
    )
    options = {"eps": epsilon, "batch_size": 200}
    fgsm = FastGradientMethod(classifier, **options)
    pgd = ProjectedGradientDescentTensorFlowV2(
        classifier, eps_step=0.01, max_iter=40, num_random_init=1, verbose=False, **options
    )
    np.random.seed(0)  # the random start takes no generator
    return {"fgsm": fgsm.generate(x, labels), "pgd": pgd.generate(x, labels)}
