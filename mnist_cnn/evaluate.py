"""`mlflow run . -e evaluate`: where a model fails on the test images, and whether it is better."""

from __future__ import annotations

import time

import mlflow
import numpy as np
from sklearn.metrics import classification_report, confusion_matrix

from mnist_cnn import plots, registry
from mnist_cnn.backend import keras
from mnist_cnn.data import Split, load_test, load_training
from mnist_cnn.metrics import (
    accuracy_interval,
    calibration,
    cross_entropy,
    expected_calibration_error,
)
from mnist_cnn.model import predict
from mnist_cnn.parameters import UserError
from mnist_cnn.promote import gate
from mnist_cnn.tracking import tracked


def evaluate(model: str, dataset: str | None, promote: bool) -> None:
    """Evaluate `model` on the test images of `dataset`, in a tracked run; promote it if proven."""
    with tracked("evaluate", model=model, promote=promote):
        source = registry.find(model)
        dataset = dataset or source.tags.get("dataset", "mnist")
        mlflow.set_tags({"dataset": dataset, "model_version": source.version})
        network = registry.load(source)
        _refuse_other_shapes(network, model)
        test, training = load_test(dataset), load_training(dataset)

        started = time.perf_counter()
        probabilities = predict(network, test.x)
        seconds = time.perf_counter() - started

        figures = summary(test, probabilities) | {"evaluate_seconds": seconds}
        validation_right = (
            predict(network, training.validation.x).argmax(1) == training.validation.y
        )
        figures["val_accuracy"] = float(validation_right.mean())
        mlflow.log_metrics(figures)
        log_report(test, probabilities, str(source))
        registry.tag(source, {name: f"{value:.4f}" for name, value in figures.items()})
        print(
            f"{source}: test accuracy {figures['test_accuracy']:.4f} (95 % interval "
            f"{figures['test_accuracy_low']:.4f} to {figures['test_accuracy_high']:.4f}), "
            f"{len(test):,} images in {seconds:.2f} s."
        )
        if promote and source.name == registry.NAME:
            print(gate(source, validation_right, training))


def summary(split: Split, probabilities: np.ndarray) -> dict[str, float]:
    """Headline figures of probabilities (n, 10) on a split."""
    right = int((probabilities.argmax(axis=1) == split.y).sum())
    low, high = accuracy_interval(right, len(split))
    return {
        "test_accuracy": right / len(split),
        "test_accuracy_low": low,
        "test_accuracy_high": high,
        "test_loss": cross_entropy(split.y, probabilities),
        "test_ece": expected_calibration_error(split.y, probabilities),
    }


def log_report(split: Split, probabilities: np.ndarray, title: str) -> None:
    """Log the classification report, the confusion matrix and its plots, and the errors."""
    guesses = probabilities.argmax(axis=1)
    digits = range(10)
    options = {"labels": digits, "zero_division": 0}
    text = classification_report(split.y, guesses, digits=4, **options)
    mlflow.log_text(text, "classification_report.txt")
    mlflow.log_dict(
        classification_report(split.y, guesses, output_dict=True, **options),
        "classification_report.json",
    )

    confusion = confusion_matrix(split.y, guesses, labels=digits)
    rows = [",".join(map(str, ["true\\predicted", *digits]))]
    rows += [",".join(map(str, [digit, *row])) for digit, row in enumerate(confusion)]
    mlflow.log_text("\n".join(rows) + "\n", "confusion_matrix.csv")
    figures = {
        "confusion_matrix_plot.png": plots.confusion_matrix_plot(
            confusion, f"Confusion matrix, {title}: {np.trace(confusion):,} of {len(split):,} right"
        ),
        "confusion_matrix_error_plot.png": plots.confusion_matrix_error_plot(
            confusion, f"Confusion-matrix errors, {title}"
        ),
        "calibration.png": plots.reliability(
            calibration(split.y, probabilities), f"Calibration, {title}"
        ),
        "misclassified.png": plots.misclassified(split.x, split.y, probabilities),
    }
    for name, figure in figures.items():
        mlflow.log_figure(figure, name)


def _refuse_other_shapes(network: keras.Model, model: str) -> None:
    if network.input_shape != (None, 28, 28, 1) or network.output_shape != (None, 10):
        raise UserError(
            f"model={model} maps {network.input_shape} to {network.output_shape}; "
            "evaluate needs (None, 28, 28, 1) to (None, 10)."
        )
