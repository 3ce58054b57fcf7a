"""Where a classifier is weak: corruptions, slices, behaviour, attacks.

`Predict` is a classifier: images uint8 (n, 28, 28, 1) to probabilities float32 (n, 10). Metrics are
named as MLflow shows them: what stands before a `/` is the section of the charts.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pandas as pd
from scipy import ndimage

from mnist_cnn.evaluation.corruptions import COLUMNS, CORRUPTIONS, MNIST_C, ROWS, corrupted
from mnist_cnn.evaluation.metrics import accuracy, bootstrapped, with_intervals
from mnist_cnn.learning.backend import keras, tf
from mnist_cnn.learning.data import Split
from mnist_cnn.learning.model import scaled

Predict = Callable[[np.ndarray], np.ndarray]


@contextmanager
def corruptions(images: np.ndarray, full: bool = False) -> Iterator[Iterable[tuple]]:
    """Names, strengths (published or all) and images, made by a thread beside what else is done."""
    each = [(n, s) for n, k in CORRUPTIONS.items() for s in range(1, 6) if full or s == k.published]
    thread = ThreadPoolExecutor(1)
    try:
        yield thread.map(lambda case: (*case, corrupted(case[0], images, case[1])), each)
    finally:
        thread.shutdown(cancel_futures=True)


def under_corruption(
    predict: Predict, labels: np.ndarray, bad: Iterable[tuple]
) -> tuple[pd.DataFrame, dict[str, float]]:
    """A table with a row for each of `bad`, from `corruptions`, and metrics of it.

    Columns corruption, strength, published, unseen_in_training, images, accuracy, low, high (of a
    95 % interval). `robust_accuracy` is the mean over MNIST-C, `robust/unseen_in_training` over
    those of it that training shows nothing like. Their intervals resample whole images.
    """
    rows, at = [], {}
    for name, strength, images in bad:
        kind, mine = CORRUPTIONS[name], predict(images).argmax(1) == labels
        facts = (name, strength, strength == kind.published, kind.unseen_in_training, len(mine))
        rows.append((*facts, *accuracy(mine)))
        if strength == kind.published:
            at[name] = mine
    columns = "corruption strength published unseen_in_training images accuracy low high"
    unseen = [name for name, kind in MNIST_C.items() if kind.unseen_in_training]
    means = {"robust_accuracy": MNIST_C, "robust/unseen_in_training": unseen}
    shares = {metric: np.mean([at[name] for name in means[metric]], axis=0) for metric in means}
    metrics = {f"robust/{name}": float(mine.mean()) for name, mine in at.items()}
    metrics |= with_intervals({m: bootstrapped(np.mean, s) for m, s in shares.items()})
    return pd.DataFrame(rows, columns=columns.split()), metrics


def slices(images: Split, correct: np.ndarray) -> pd.DataFrame:
    """Accuracy and 95 % interval of all images and of each of `thirds`, a row each, worst first."""
    chosen = {"all": np.ones(len(correct), bool), **thirds(images.x)}
    rows = [(name, mine.sum(), *accuracy(correct[mine])) for name, mine in chosen.items()]
    table = pd.DataFrame(rows, columns=["slice", "images", "accuracy", "low", "high"])
    return table.sort_values("accuracy", ignore_index=True)


def thirds(images: np.ndarray) -> dict[str, np.ndarray]:
    """Booleans (n,) by slice: thirds by thickness, slant and size. No ink: in none; empty: none."""
    x = images[..., 0] / 255.0
    powers = np.stack([ROWS**0, ROWS, COLUMNS, ROWS * COLUMNS, ROWS**2], dtype=float)
    sums = x.reshape(len(x), -1) @ powers.reshape(5, -1).T
    ink, row, column, product, square = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        slant = -(product - row * column / ink) / (square - row**2 / ink)
        # How far the ink is from its edge: 1 for a line of one pixel, more for a thick stroke.
        solid = x > 0.5
        depth = np.stack([ndimage.distance_transform_edt(image) for image in solid])
        thickness = depth.sum(axis=(1, 2)) / solid.sum(axis=(1, 2))
    size = np.where(ink > 0, solid.any(axis=1).sum(axis=1) * solid.any(axis=2).sum(axis=1), np.nan)
    measures = {
        ("thin strokes", "medium strokes", "thick strokes"): thickness,
        ("leaning left", "upright", "leaning right"): slant,
        ("small", "medium size", "large"): size,
    }
    found: dict[str, np.ndarray] = {}
    for words, values in measures.items():
        low, high = pd.Series(values).quantile([1 / 3, 2 / 3])
        chosen = (values <= low, (low < values) & (values <= high), values > high)
        found |= zip(words, chosen, strict=True)
    return {word: chosen for word, chosen in found.items() if chosen.any()}


def behaviour(predict: Predict, images: Split) -> dict[str, float]:
    """What any digit reader should do, in the way of CheckList (Ribeiro et al. 2020).

    Shares of predictions that stay under all eight shifts by one pixel, and when strokes grow or
    shrink by half a pixel; and the confidence in a blank image and, in the mean, in noise alone.
    """
    x, before = images.x, predict(images.x).argmax(1)
    steps = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]
    shifted = [predict(np.roll(x, step, (1, 2))).argmax(1) == before for step in steps]
    strokes = [predict(corrupted("thickness", x, s)).argmax(1) == before for s in (1, 2)]
    noise = np.random.default_rng(0).integers(0, 256, x.shape, np.uint8)
    return {
        "behaviour/shift_invariance": float(np.all(shifted, axis=0).mean()),
        "behaviour/thickness_invariance": float(np.all(strokes, axis=0).mean()),
        "behaviour/blank_confidence": float(predict(np.zeros_like(x[:1])).max()),
        "behaviour/noise_confidence": float(predict(noise).max(1).mean()),
    }


def attacks(network: keras.Model, images: Split) -> dict[str, float]:
    """Accuracy after attacks that know the network, from the Adversarial Robustness Toolbox.

    A pixel may change by 0.3 of the range, MNIST's usual bound, which an ordinary network does not
    survive, or by 0.1: `fgsm`, a step along the sign of the gradient (Goodfellow et al. 2015), and
    `pgd`, 40 steps of 0.01 from a random start (Madry et al. 2018).
    """
    bad = adversarial(network, scaled(images.x), images.y, 0.1, 0.3)
    answers = network.predict(np.concatenate(list(bad.values())), batch_size=500, verbose=0)
    correct = answers.argmax(1).reshape(len(bad), -1) == images.y
    return with_intervals({f"attack/{n}": accuracy(c) for n, c in zip(bad, correct, strict=True)})


def adversarial(
    network: keras.Model, x: np.ndarray, labels: np.ndarray, *epsilons: float
) -> dict[str, np.ndarray]:
    """`x`, float32 images in [0, 1], changed by at most `epsilon` a pixel: `fgsm_0.1` and so on."""
    with warnings.catch_warnings(action="ignore"):  # no PyTorch; here, for others need not wait
        from art.attacks.evasion import FastGradientMethod
        from art.attacks.evasion import ProjectedGradientDescentTensorFlowV2 as ProjectedGradient
        from art.estimators.classification import TensorFlowV2Classifier

    # Keras takes it from the logits, so a network that is sure has a gradient still. It holds the
    # network, for ART's many steps take half the time when they call one graph.
    loss = tf.function(lambda y, x: keras.losses.CategoricalCrossentropy()(y, network(x)))
    art = TensorFlowV2Classifier(lambda x, training: x, 10, (28, 28, 1), loss, clip_values=(0, 1))
    y = np.eye(10, dtype=np.float32)[labels]
    found: dict[str, np.ndarray] = {}
    for epsilon in epsilons:
        options = {"eps": epsilon, "batch_size": 200}
        fgsm = FastGradientMethod(art, **options)
        steps = {"eps_step": 0.01, "max_iter": 40, "num_random_init": 1, "verbose": False}
        pgd = ProjectedGradient(art, **steps, **options)
        np.random.seed(0)  # for the same random start each time; it takes no generator
        found |= {f"fgsm_{epsilon}": fgsm.generate(x, y), f"pgd_{epsilon}": pgd.generate(x, y)}
    return found
