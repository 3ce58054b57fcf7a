"""Figures from labels uint8 (n,) and probabilities float32 (n, 10)."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from sklearn.metrics import precision_recall_curve

Interval = tuple[float, float, float]  # a value, and the ends of its 95 % interval


def accuracy(correct: np.ndarray) -> Interval:
    """Share of `correct`, booleans (n,), with its Wilson score interval; NaN of no image."""
    if not len(correct):
        return (np.nan,) * 3
    low, high = binomtest(int(correct.sum()), len(correct)).proportion_ci(0.95, method="wilson")
    return float(correct.mean()), float(low), float(high)


def bootstrapped(statistic: Callable[..., float], *arrays: np.ndarray) -> Interval:
    """A statistic of arrays, a row an image; its percentile interval by 200 seeded resamples."""
    resamples = np.random.default_rng(0).integers(len(arrays[0]), size=(200, len(arrays[0])))
    found = [statistic(*(array[chosen] for array in arrays)) for chosen in resamples]
    low, high = np.percentile(found, [2.5, 97.5])
    return float(statistic(*arrays)), float(low), float(high)


def with_intervals(found: dict[str, Interval]) -> dict[str, float]:
    """Each metric and the ends of its interval, in a section of their own: `interval/…_low`."""
    flat: dict[str, float] = {}
    for name, values in found.items():
        end = f"interval/{name.rsplit('/')[-1]}"
        flat |= zip((name, f"{end}_low", f"{end}_high"), values, strict=True)
    return flat


def per_class(labels: np.ndarray, predictions: np.ndarray) -> pd.DataFrame:
    """Precision and recall of each digit with 95 % Wilson intervals; NaN where there is no image.

    Ten rows; columns digit, images, precision, recall, and the two with `_low` and `_high`.
    """
    correct = labels == predictions
    table = pd.DataFrame({"digit": range(10), "images": np.bincount(labels, minlength=10)})
    for name, of in (("precision", predictions), ("recall", labels)):
        found = [accuracy(correct[of == digit]) for digit in range(10)]
        table[[name, f"{name}_low", f"{name}_high"]] = found
    return table


def cross_entropy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of -log p(label), natural logarithm, p clipped at 1e-7 as Keras does."""
    return float(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-7, 1.0)).mean())


def calibrated(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Temperature scaling (Guo et al. 2017) of probabilities: p^(1/T), normalised; float64."""
    powers = np.clip(probabilities.astype(np.float64), 1e-12, 1.0) ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def best_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature in 0.05 to 20 with the smallest cross-entropy; below 1 sharpens."""
    found = minimize_scalar(
        lambda log: cross_entropy(labels, calibrated(probabilities, np.exp(log))),
        bounds=(np.log(0.05), np.log(20)),
        method="bounded",
    )
    return float(np.exp(found.x))


def likelihood(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Geometric mean of p(label), once the temperature is the best: exp(-cross-entropy), to 1.0."""
    honest = calibrated(probabilities, best_temperature(labels, probabilities))
    return float(np.exp(-cross_entropy(labels, honest)))


def sure_from(labels: np.ndarray, probabilities: np.ndarray, wanted: float) -> float:
    """The lowest confidence from which on the share of correct predictions is at least `wanted`.

    1.0 if no confidence is enough: then nothing is sure. Equal confidences stand or fall together.
    """
    correct = probabilities.argmax(axis=1) == labels
    if not correct.any():
        return 1.0
    precision, _, thresholds = precision_recall_curve(correct, probabilities.max(axis=1))
    return float(min(thresholds[precision[:-1] >= wanted], default=1.0))


def calibration(correct: np.ndarray, confidence: np.ndarray, bins: int = 15) -> np.ndarray:
    """Reliability diagram (Guo et al. 2017), float64 (3, bins): count, confidence, accuracy."""
    index = np.clip((confidence.astype(np.float64) * bins).astype(int), 0, bins - 1)
    counts, *sums = (np.bincount(index, weights, bins) for weights in (None, confidence, correct))
    return np.stack([counts, *(total / np.maximum(counts, 1) for total in sums)])


def expected_calibration_error(correct: np.ndarray, confidence: np.ndarray) -> float:
    """Mean distance between confidence and accuracy over 15 bins, weighted by their counts."""
    counts, mean, accuracy = calibration(correct, confidence)
    return float((counts * abs(mean - accuracy)).sum() / counts.sum())


def error_matrix(confusion: np.ndarray) -> np.ndarray:
    """Confusion matrix by row sums, zero diagonal (Geron, Hands-On Machine Learning, chapter 3)."""
    return confusion * (1 - np.eye(10)) / np.maximum(confusion.sum(axis=1, keepdims=True), 1)


def mcnemar(new_correct: np.ndarray, old_correct: np.ndarray) -> tuple[float, Interval]:
    """Exact one-sided McNemar test (McNemar 1947) that `new` is better; booleans (n,) each.

    Its p-value, and the gain of accuracy with Clopper and Pearson's interval of the differences.
    """
    better, differ = (new_correct & ~old_correct).sum(), (new_correct != old_correct).sum()
    if differ == 0:
        return 1.0, (0.0, 0.0, 0.0)
    p_value = binomtest(better, differ, 0.5, alternative="greater").pvalue
    share = binomtest(better, differ).proportion_ci(0.95)
    low, high = (float((2 * end - 1) * differ / len(new_correct)) for end in share)
    return float(p_value), (float((2 * better - differ) / len(new_correct)), low, high)
