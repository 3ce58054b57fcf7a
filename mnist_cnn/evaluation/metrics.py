"""Figures from labels uint8 (n,) and probabilities float32 (n, 10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, bootstrap


def accuracy_interval(right: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of an accuracy of `right` in `total`."""
    interval = binomtest(right, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_interval(statistic: Callable[..., float], *arrays: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic over 200 resamples of the images; seeded.

    `arrays`: what the statistic takes, each with a row an image. One image cannot be resampled:
    its value is both ends.
    """
    count = len(arrays[0])
    if count == 1:
        return (statistic(*arrays),) * 2

    def of(chosen: np.ndarray) -> float:
        return statistic(*(array[chosen] for array in arrays))

    found = bootstrap(
        (np.arange(count),),
        of,
        n_resamples=200,
        method="percentile",
        vectorized=False,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def per_class(labels: np.ndarray, guesses: np.ndarray) -> pd.DataFrame:
    """Precision and recall of each digit with 95 % Wilson intervals; NaN where there is no image.

    Columns digit, images, precision, precision_low, precision_high, recall, recall_low, ...
    """
    rows = []
    for digit in range(10):
        hits = int(((labels == digit) & (guesses == digit)).sum())
        row: dict[str, float] = {"digit": digit, "images": int((labels == digit).sum())}
        for name, total in (("precision", guesses == digit), ("recall", labels == digit)):
            count = int(total.sum())
            row[name] = hits / count if count else np.nan
            low, high = accuracy_interval(hits, count) if count else (np.nan, np.nan)
            row |= {f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def cross_entropy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of -log p(label), natural logarithm, p clipped at 1e-7 as Keras does."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(chosen, 1e-7, 1.0)).mean())


def calibrated(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Temperature scaling (Guo et al. 2017) of probabilities: p^(1/T), normalised; float64."""
    powers = np.clip(probabilities.astype(np.float64), 1e-12, 1.0) ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def best_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature in 0.05 to 20 with the smallest cross-entropy; below 1 sharpens."""

    def loss(log_temperature: float) -> float:
        return cross_entropy(labels, calibrated(probabilities, np.exp(log_temperature)))

    found = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(found.x))


def sure_from(labels: np.ndarray, probabilities: np.ndarray, wanted: float) -> float:
    """The lowest confidence from which on the share of right answers is at least `wanted`.

    1.0 if no confidence is enough: then nothing is sure.
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    right = (probabilities.argmax(axis=1) == labels)[order]
    enough = np.flatnonzero(right.cumsum() / np.arange(1, len(right) + 1) >= wanted)
    return float(confidence[order[enough[-1]]]) if len(enough) else 1.0


def calibration(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> np.ndarray:
    """Reliability diagram (Guo et al. 2017): float64 (bins, 3) of count, confidence, accuracy.

    The bins are of equal width in confidence; an empty one is all 0.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    place = np.clip((confidence * bins).astype(int), 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights, bins) for weights in (confidence, right)]
    return np.stack([counts, *(total / np.maximum(counts, 1) for total in sums)], axis=1)


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean distance between confidence and accuracy over 15 bins, weighted by their counts."""
    counts, confidence, accuracy = calibration(labels, probabilities).T
    return float((counts * abs(confidence - accuracy)).sum() / counts.sum())


def error_matrix(confusion: np.ndarray) -> np.ndarray:
    """Confusion matrix (10, 10) by row sums with a zero diagonal: where each digit's errors go.

    A row without images stays zero. As in Geron, Hands-On Machine Learning, chapter 3.
    """
    sums = confusion.sum(axis=1, keepdims=True)
    rates = np.divide(confusion, sums, out=np.zeros(confusion.shape), where=sums > 0)
    np.fill_diagonal(rates, 0.0)
    return rates


@dataclass(frozen=True)
class PairedTest:
    """Two models on the same images: how often only the one, or only the other, is right."""

    only_new: int
    only_old: int
    p_value: float  # one-sided: the chance of this or more for `new` if both were equally good
    gain: float  # of accuracy, new - old, with its 95 % interval
    low: float
    high: float


def mcnemar(new_right: np.ndarray, old_right: np.ndarray) -> PairedTest:
    """Exact one-sided McNemar test (McNemar 1947) that `new` is better; booleans (n,) each.

    The interval of the gain is Clopper and Pearson's for the share of `new` in the differences.
    """
    only_new = int((new_right & ~old_right).sum())
    only_old = int((~new_right & old_right).sum())
    differ = only_new + only_old
    if differ == 0:
        return PairedTest(0, 0, 1.0, 0.0, 0.0, 0.0)
    p_value = float(binomtest(only_new, differ, 0.5, alternative="greater").pvalue)
    share = binomtest(only_new, differ).proportion_ci(0.95)
    low, high = ((2 * end - 1) * differ / len(new_right) for end in (share.low, share.high))
    gain = (only_new - only_old) / len(new_right)
    return PairedTest(only_new, only_old, p_value, gain, float(low), float(high))
