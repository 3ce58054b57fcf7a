"""`mlflow run . -e evaluate`: where a model fails on the test images, and whether it is better."""

from __future__ import annotations

import time

import mlflow
import numpy as np
from sklearn.metrics import classification_report, confusion_matrix

from mnist_cnn.evaluation import plots
from mnist_cnn.evaluation.metrics import (
    accuracy_interval,
    best_temperature,
    bootstrap_interval,
    calibrated,
    calibration,
    cross_entropy,
    expected_calibration_error,
    per_class,
)
from mnist_cnn.evaluation.model_card import model_card
from mnist_cnn.evaluation.robustness import (
    attacks,
    behaviour,
    robust_figures,
    robustness,
    slices,
    under_corruption,
)
from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.data import Split, load_test, load_training
from mnist_cnn.learning.model import predict
from mnist_cnn.parameters import UserError
from mnist_cnn.promote import gate
from mnist_cnn.tracking import registry
from mnist_cnn.tracking.runs import tracked

# Tags of a version that say how it was made.
ORIGIN = ("recipe", "seed", "dataset", "dataset_digest", "parameter_count", "study")


# The parts that take many answers look at the first images only, unless depth=full; an attack
# takes 40 gradients an image, so with it too.
CORRUPTED, BEHAVIOUR = 2000, 1000
ATTACKED, ATTACKED_IN_FULL = 200, 2000


def evaluate(model: str, dataset: str | None, promote: bool, depth: str = "standard") -> None:
    """Evaluate `model` on the test images of `dataset`, in a tracked run; promote it if proven."""
    with tracked("evaluate", model=model, promote=promote, depth=depth):
        source = registry.find(model)
        dataset = dataset or source.tags.get("dataset", "mnist")
        mlflow.set_tags({"dataset": dataset, "model_version": source.version})
        network = registry.load(source)
        _refuse_other_shapes(network, model)
        test, training = load_test(dataset), load_training(dataset)

        on_validation = predict(network, training.validation.x)
        started = time.perf_counter()  # warm: the first call of a network traces it
        probabilities = predict(network, test.x)
        seconds = time.perf_counter() - started
        validation_right = on_validation.argmax(1) == training.validation.y

        temperature = best_temperature(training.validation.y, on_validation)
        figures = summary(test, probabilities, temperature)
        figures |= {"evaluate_seconds": seconds, "val_accuracy": float(validation_right.mean())}
        figures |= _log_weaknesses(network, test, probabilities, depth == "full")
        mlflow.log_metrics(figures)
        log_report(test, probabilities, calibrated(probabilities, temperature), str(source))

        right = probabilities.argmax(1) == test.y
        classes, parts = per_class(test.y, probabilities.argmax(1)), slices(test, right)
        mlflow.log_text(classes.to_csv(index=False), "per_class.csv")
        mlflow.log_text(parts.to_csv(index=False), "slices.csv")
        mlflow.set_tag("worst_slice", parts["slice"][0])
        origin = {"dataset": dataset} | {k: v for k, v in source.tags.items() if k in ORIGIN}
        card = model_card(str(source), origin, figures, classes, parts)
        mlflow.log_text(card, "model_card.md")
        registry.tag(source, {name: f"{value:.4f}" for name, value in figures.items()})
        registry.describe(source, card)
        print(
            f"{source}: test accuracy {figures['test_accuracy']:.4f} (95 % interval "
            f"{figures['test_accuracy_low']:.4f} to {figures['test_accuracy_high']:.4f}), "
            f"{len(test):,} images in {seconds:.2f} s. Under corruption "
            f"{figures['robust_accuracy']:.4f} ({figures['robust_accuracy_low']:.4f} to "
            f"{figures['robust_accuracy_high']:.4f}); worst slice: {parts['slice'][0]}, "
            f"{parts['accuracy'][0]:.4f}."
        )
        if promote and source.name == registry.NAME:
            print(gate(source, network, validation_right, training))


def summary(split: Split, probabilities: np.ndarray, temperature: float) -> dict[str, float]:
    """Headline figures of probabilities (n, 10) on a split, each with its 95 % interval."""
    right = int((probabilities.argmax(axis=1) == split.y).sum())
    figures = {"test_accuracy": right / len(split)}
    figures["test_accuracy_low"], figures["test_accuracy_high"] = accuracy_interval(
        right, len(split)
    )
    for name, metric, answers in (
        ("test_loss", cross_entropy, probabilities),
        ("test_ece", expected_calibration_error, probabilities),
        ("test_ece_calibrated", expected_calibration_error, calibrated(probabilities, temperature)),
    ):
        figures[name] = metric(split.y, answers)
        low, high = bootstrap_interval(metric, split.y, answers)
        figures |= {f"{name}_low": low, f"{name}_high": high}
    return figures | {"temperature": temperature}


def _log_weaknesses(
    network: keras.Model, test: Split, probabilities: np.ndarray, full: bool
) -> dict[str, float]:
    """Log the corruption suite; returns its figures and those of behaviour and attacks."""

    def answer(images: np.ndarray) -> np.ndarray:
        return predict(network, images)

    some, few = (
        test if full else Split(test.x[:count], test.y[:count]) for count in (CORRUPTED, BEHAVIOUR)
    )
    right = under_corruption(answer, some, every_strength=full)
    table = robustness(right)
    mlflow.log_text(table.to_csv(index=False), "robustness.csv")
    clean = float((probabilities.argmax(1) == test.y)[: len(some)].mean())
    mlflow.log_figure(plots.robustness(table, clean, len(some)), "robustness.png")
    count = ATTACKED_IN_FULL if full else ATTACKED
    attacked = attacks(network, Split(test.x[:count], test.y[:count]))
    return robust_figures(right) | behaviour(answer, few) | attacked


def log_report(split: Split, probabilities: np.ndarray, honest: np.ndarray, title: str) -> None:
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
            {
                "as it is": calibration(split.y, probabilities),
                "with temperature": calibration(split.y, honest),
            },
            f"Calibration, {title}",
        ),
        "misclassified.png": plots.misclassified(split.x, split.y, honest),
    }
    for name, figure in figures.items():
        mlflow.log_figure(figure, name)


def _refuse_other_shapes(network: keras.Model, model: str) -> None:
    if network.input_shape != (None, 28, 28, 1) or network.output_shape != (None, 10):
        raise UserError(
            f"model={model} maps {network.input_shape} to {network.output_shape}; "
            "evaluate needs (None, 28, 28, 1) to (None, 10)."
        )
