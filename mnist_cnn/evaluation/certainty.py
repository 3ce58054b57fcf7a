"""When an answer is sure, when it is no digit, and what that is worth on recorded drawings."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mnist_cnn.evaluation import plots
from mnist_cnn.evaluation.metrics import best_temperature, calibrated, sure_from
from mnist_cnn.learning.handwriting import kept

SURE = 0.999  # share of correct answers among those that are sure, on the validation images
SURE_DRAWN = 0.97, 0.99  # likewise on generated drawings, four in ten no digit: at least, at most
STAY_SURE = 0.86  # share of the generated digits that more than the least must leave sure
MISSED = 0.03  # share of the generated digits that may be called none
DECIDING = 2**31  # seed of these drawings: no training has it
Answers = tuple[np.ndarray, np.ndarray]  # labels (n,) and what was predicted, (n, 10)


def read_drawings(
    predict: Callable[..., np.ndarray], recorded: Any, validation: Answers
) -> tuple[dict[str, float], dict[str, float], Figure]:
    """How certain is certain, the metrics of recorded drawings, and a figure of the misread ones.

    `predict`: float32 (n, 28, 28, 1) in 0 to 255 to probabilities (n, 10); `recorded`: Drawings.
    """
    deciding, known_labels = kept(4000, DECIDING, none=0.4)
    every = predict(np.concatenate([deciding, 255 * recorded.images]))
    drawn, read = np.split(every, [len(deciding)])
    known = certainty(validation, (known_labels, drawn))
    digits = recorded.labels >= 0
    honest = calibrated(read[digits], known["temperature"])
    figure = plots.misclassified(recorded.images[digits], recorded.labels[digits], honest)
    return known, drawing_metrics(recorded, read, known), figure


def certainty(validation: Answers, generated: Answers) -> dict[str, float]:
    """`temperature`, and the confidence `sure_from` which on an answer is sure, `none_below` none.

    Decided on validation images and on generated drawings, whose label is -1 for no digit.
    """
    temperature = best_temperature(*validation)
    labels, drawn = generated[0], calibrated(generated[1], temperature)
    sure = sure_from(validation[0], calibrated(validation[1], temperature), SURE)
    least, most = (sure_from(labels, drawn, share) for share in SURE_DRAWN)
    stay, none = np.quantile(drawn[labels >= 0].max(axis=1), (1 - STAY_SURE, MISSED)).tolist()
    sure = max(sure, least, min(most, stay))
    return {"temperature": temperature, "sure_from": sure, "none_below": min(none, sure)}


def drawing_metrics(recorded: Any, read: np.ndarray, known: dict[str, float]) -> dict[str, float]:
    """Metrics of recorded drawings, read as probabilities (n, 10); `known`: of `certainty`.

    `drawn/worst_writers` is the accuracy of the worst tenth of the writers, those of at least five
    digits. What the file has none of (digits, no digits, writers) has no metric.
    """
    _, labels, writers = recorded
    confidence = calibrated(read, known["temperature"]).max(axis=1)
    correct, digits = read.argmax(axis=1) == labels, labels >= 0
    sure, none = confidence >= known["sure_from"], confidence < known["none_below"]
    found = {
        "drawn_accuracy": correct[digits],
        "drawn/sure": sure[digits],
        "drawn/wrong_and_sure": (sure & ~correct)[digits],
        "drawn/called_none": none[digits],
        "drawn_unknown_sure": sure[~digits],
        "drawn/unknown_called_none": none[~digits],
        **{f"drawn/accuracy_{digit}": correct[labels == digit] for digit in range(10)},
    }
    by_writer = [correct[digits & (writers == writer)] for writer in np.unique(writers[digits])]
    accuracies = sorted(own.mean() for own in by_writer if len(own) >= 5)
    if len(accuracies) > 1:
        found["drawn/worst_writers"] = np.array(accuracies[: -(-len(accuracies) // 10)])
    return {name: float(values.mean()) for name, values in found.items() if len(values)}
