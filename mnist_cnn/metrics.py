"""Figures from labels uint8 (n,) and probabilities float32 (n, 10)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest


def accuracy_interval(right: int, total: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of an accuracy of `right` in `total`."""
    interval = binomtest(right, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def cross_entropy(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of -log p(label), natural logarithm, p clipped at 1e-7 as Keras does."""
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.clip(chosen, 1e-7, 1.0)).mean())


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


def mcnemar(new_right: np.ndarray, old_right: np.ndarray) -> PairedTest:
    """Exact one-sided McNemar test (McNemar 1947) that `new` is better; booleans (n,) each."""
    only_new = int((new_right & ~old_right).sum())
    only_old = int((~new_right & old_right).sum())
    if only_new + only_old == 0:
        return PairedTest(0, 0, 1.0)
    p_value = binomtest(only_new, only_new + only_old, 0.5, alternative="greater").pvalue
    return PairedTest(only_new, only_old, float(p_value))
