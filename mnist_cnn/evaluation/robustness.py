"""Where a classifier is weak: corruptions, slices, behaviour, attacks.

`Predict` is a classifier: images uint8 (n, 28, 28, 1) to probabilities float32 (n, 10). Metrics are
named as MLflow shows them: what stands before a `/` is the section of the charts.
"""

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import ndimage

from mnist_cnn.evaluation.corruptions import COLUMNS, CORRUPTIONS, ROWS, corrupted
from mnist_cnn.evaluation.metrics import accuracy, bootstrapped, with_interval
from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.data import Split
from mnist_cnn.learning.model import scaled

Predict = Callable[[np.ndarray], np.ndarray]
Correct = dict[tuple[str, int], np.ndarray]  # booleans (n,) by corruption and strength

# Thirds of the images, from the lowest to the highest of each of `_measures`.
SLICES = {
    "thickness": ("thin strokes", "medium strokes", "thick strokes"),
    "slant": ("leaning left", "upright", "leaning right"),
    "size": ("small", "medium size", "large"),
}


def under_corruption(predict: Predict, images: Split, every_strength: bool) -> Correct:
    """Whether each prediction is correct, at the published or at every strength."""
    return {
        (name, strength): predict(corrupted(name, images.x, strength)).argmax(1) == images.y
        for name, corruption in CORRUPTIONS.items()
        for strength in (range(1, 6) if every_strength else [corruption.published])
    }


def robustness_table(correct: Correct) -> pd.DataFrame:
    """A row for each corruption and strength; low and high are the ends of a 95 % interval.

    Columns corruption, strength, published, unseen_in_training, images, accuracy, low, high.
    """
    table = pd.DataFrame(correct.keys(), columns=["corruption", "strength"])
    kinds = [CORRUPTIONS[name] for name in table.corruption]
    table["published"] = table.strength == [kind.published for kind in kinds]
    table["unseen_in_training"] = [kind.unseen_in_training for kind in kinds]
    table["images"] = [len(mine) for mine in correct.values()]
    table[["accuracy", "low", "high"]] = [accuracy(mine) for mine in correct.values()]
    return table


def robust_metrics(correct: Correct) -> dict[str, float]:
    """`robust_accuracy`, the mean over MNIST-C at the published strength, and each corruption.

    `robust/unseen_in_training` is the mean over those of MNIST-C that training shows nothing like.
    The intervals of both resample images, each with all its corruptions, for an image that is hard
    under one of them is hard under most.
    """
    at = {name: correct[name, kind.published] for name, kind in CORRUPTIONS.items()}
    mnist_c = [name for name, kind in CORRUPTIONS.items() if kind.in_mnist_c]
    unseen = [name for name in mnist_c if CORRUPTIONS[name].unseen_in_training]
    metrics = {f"robust/{name}": float(mine.mean()) for name, mine in at.items()}
    for metric, names in (("robust_accuracy", mnist_c), ("robust/unseen_in_training", unseen)):
        shares = np.mean([at[name] for name in names], axis=0)
        metrics |= with_interval(metric, bootstrapped(np.mean, shares))
    return metrics


def slices(images: Split, correct: np.ndarray) -> pd.DataFrame:
    """Accuracy with its 95 % interval of all images and of each of `thirds`.

    Columns slice, images, accuracy, low, high; the worst first.
    """
    chosen = {"all": np.ones(len(correct), bool), **thirds(images.x)}
    rows = [(name, mine.sum(), *accuracy(correct[mine])) for name, mine in chosen.items()]
    table = pd.DataFrame(rows, columns=["slice", "images", "accuracy", "low", "high"])
    return table.sort_values("accuracy", ignore_index=True)


def thirds(images: np.ndarray) -> dict[str, np.ndarray]:
    """Booleans (n,) by slice, those of SLICES that hold an image; one without ink is in none."""
    found: dict[str, np.ndarray] = {}
    for name, values in _measures(images).items():
        known = np.isfinite(values)
        if known.any():
            third = np.searchsorted(np.quantile(values[known], [1 / 3, 2 / 3]), values)
            found |= {word: known & (third == i) for i, word in enumerate(SLICES[name])}
    return {word: chosen for word, chosen in found.items() if chosen.any()}


def _measures(images: np.ndarray) -> dict[str, np.ndarray]:
    """Thickness, slant and size of each digit, float64 (n,); NaN where there is no ink."""
    x = images[..., 0] / 255.0
    ink = x.sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        dy, dx = (c - ((x * c).sum(axis=(1, 2)) / ink)[:, None, None] for c in (ROWS, COLUMNS))
        slant = -(x * dx * dy).sum(axis=(1, 2)) / (x * dy**2).sum(axis=(1, 2))
        # How far the ink is from its edge: 1 for a line of one pixel, more for a thick stroke.
        solid = x > 0.5
        depth = np.stack([ndimage.distance_transform_edt(image) for image in solid])
        thickness = depth.sum(axis=(1, 2)) / solid.sum(axis=(1, 2))
    size = np.where(ink > 0, solid.any(axis=1).sum(axis=1) * solid.any(axis=2).sum(axis=1), np.nan)
    return {"thickness": thickness, "slant": slant, "size": size.astype(float)}


def behaviour(predict: Predict, images: Split) -> dict[str, float]:
    """What any digit reader should do, in the way of CheckList (Ribeiro et al. 2020).

    Shares of predictions that stay under all eight shifts by one pixel, and when strokes grow or
    shrink by half a pixel; of steps of growing noise at which mean confidence does not rise; and
    the confidence in a blank image and, in the mean, in images of noise alone.
    """
    x, before = images.x, predict(images.x).argmax(1)
    steps = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]
    shifted = [predict(np.roll(x, step, (1, 2))).argmax(1) == before for step in steps]
    strokes = [predict(corrupted("thickness", x, s)).argmax(1) == before for s in (1, 2)]

    rng = np.random.default_rng(0)
    noise = rng.normal(0, 255, x.shape)
    noisy = (np.clip(x + scale * noise, 0, 255) for scale in (0, 0.1, 0.2, 0.3, 0.4, 0.5))
    confidence = [predict(images.astype(np.uint8)).max(1).mean() for images in noisy]
    found = {
        "shift_invariance": np.all(shifted, axis=0).mean(),
        "thickness_invariance": np.all(strokes, axis=0).mean(),
        "noise_monotone": (np.diff(confidence) <= 0).mean(),
        "blank_confidence": predict(np.zeros_like(x[:1])).max(),
        "noise_confidence": predict(rng.integers(0, 256, x.shape, np.uint8)).max(1).mean(),
    }
    return {f"behaviour/{name}": float(value) for name, value in found.items()}


def attacks(network: keras.Model, images: Split) -> dict[str, float]:
    """Accuracy after attacks that know the network, from the Adversarial Robustness Toolbox.

    Every pixel may change by 0.3 of the range, MNIST's usual bound (Madry et al. 2018), which an
    ordinary network does not survive, or by 0.1: `fgsm`, one step along the sign of the gradient
    (Goodfellow et al. 2015), and `pgd`, 40 steps of 0.01 from a random start (Madry et al. 2018).
    """
    metrics: dict[str, float] = {}
    for epsilon in (0.1, 0.3):
        for name, bad in adversarial(network, scaled(images.x), images.y, epsilon).items():
            correct = network.predict(bad, batch_size=500, verbose=0).argmax(1) == images.y
            metrics |= with_interval(f"attack/{name}_{epsilon}", accuracy(correct))
    return metrics


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
