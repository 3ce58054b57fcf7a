"""When an answer is sure, when it is no digit, and what that is worth on recorded drawings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mnist_cnn.evaluation.metrics import best_temperature, calibrated, sure_from
from mnist_cnn.learning.data import Split
from mnist_cnn.learning.handwriting import generated

SURE = 0.999  # share of correct answers among those that are sure, on the validation images
SURE_DRAWN = 0.98  # likewise on generated drawings, of which four in ten are no digit
MISSED = 0.01  # share of the generated digits that may be called none
DECIDING = 2**31  # seed of these drawings: no training has it


@dataclass(frozen=True)
class Certainty:
    """Temperature, the confidence from which on an answer is sure, and below which it is none."""

    temperature: float
    sure_from: float
    none_below: float


def deciding_drawings() -> Split:
    """The generated drawings on which `certainty` decides; label -1: no digit."""
    return Split(*generated(4000, DECIDING, none=0.4))


def certainty(
    validation: np.ndarray, probabilities: np.ndarray, labels: np.ndarray, drawn: np.ndarray
) -> Certainty:
    """Decided on validation images and on `deciding_drawings`.

    `validation` (n,) and `labels` (m,) are their labels, the others what was predicted: (n, 10) and
    (m, 10).
    """
    temperature = best_temperature(validation, probabilities)
    drawn = calibrated(drawn, temperature)
    sure = max(
        sure_from(validation, calibrated(probabilities, temperature), SURE),
        sure_from(labels, drawn, SURE_DRAWN),
    )
    none = float(np.quantile(drawn[labels >= 0].max(axis=1), MISSED))
    return Certainty(temperature, sure, min(none, sure))


def drawing_metrics(
    labels: np.ndarray, writers: np.ndarray, probabilities: np.ndarray, known: Certainty
) -> dict[str, float]:
    """Metrics of recorded drawings: labels (n,), -1 for no digit; probabilities (n, 10) as read.

    `drawn/worst_writers` is the accuracy of the worst tenth of the writers, those of at least five
    digits. What the file has none of (digits, no digits, writers) has no metric.
    """
    confidence = calibrated(probabilities, known.temperature).max(axis=1)
    sure, correct = confidence >= known.sure_from, probabilities.argmax(axis=1) == labels
    digits = labels >= 0
    metrics: dict[str, float] = {}
    if digits.any():
        metrics["drawn_accuracy"] = correct[digits].mean()
        metrics["drawn/sure"] = sure[digits].mean()
        metrics["drawn/wrong_and_sure"] = (sure & ~correct)[digits].mean()
        metrics["drawn/called_none"] = (confidence < known.none_below)[digits].mean()
        for digit in np.unique(labels[digits]):
            metrics[f"drawn/accuracy_{digit}"] = correct[labels == digit].mean()
    if not digits.all():
        metrics["drawn_unknown_sure"] = sure[~digits].mean()
        metrics["drawn/unknown_called_none"] = (confidence < known.none_below)[~digits].mean()
    by_writer = [correct[digits & (writers == writer)] for writer in np.unique(writers[digits])]
    accuracies = sorted(own.mean() for own in by_writer if len(own) >= 5)
    if len(accuracies) > 1:
        metrics["drawn/worst_writers"] = np.mean(accuracies[: -(-len(accuracies) // 10)])
    return {name: float(value) for name, value in metrics.items()}
