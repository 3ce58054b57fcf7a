"""`mlflow run . -e evaluate`: where a model fails on the test images, and whether it is better."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from sklearn.metrics import classification_report, confusion_matrix

from mnist_cnn.browser.drawings import Drawings
from mnist_cnn.browser.drawings import read as read_drawings
from mnist_cnn.evaluation import plots
from mnist_cnn.evaluation.certainty import certainty, deciding_drawings, drawing_metrics
from mnist_cnn.evaluation.metrics import (
    accuracy_interval,
    best_temperature,
    bootstrap_interval,
    calibrated,
    calibration,
    cross_entropy,
    expected_calibration_error,
    per_class,
    with_interval,
)
from mnist_cnn.evaluation.model_card import model_card
from mnist_cnn.evaluation.robustness import (
    attacks,
    behaviour,
    robust_metrics,
    robustness_table,
    slices,
    under_corruption,
)
from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.data import Split, load_test, load_training
from mnist_cnn.learning.model import predict
from mnist_cnn.parameters import UserError
from mnist_cnn.promote import gate
from mnist_cnn.tracking import registry
from mnist_cnn.tracking.registry import ModelRef
from mnist_cnn.tracking.runs import label_run, tracked
from mnist_cnn.train import log_dataset

# Tags of a version that say how it was made; the last two on versions made before.
ORIGIN = ("recipe", "seed", "dataset", "dataset_digest", "parameter_count", "study")

# The parts that take many predictions look at the first images only, unless depth=full; an attack
# takes 40 gradients an image, so with it too.
CORRUPTED, BEHAVIOUR = 2000, 1000
ATTACKED, ATTACKED_IN_FULL = 200, 2000


@dataclass(frozen=True)
class Evaluation:
    """What was measured of a model on the test images, `n` of them."""

    metrics: dict[str, float]
    probabilities: np.ndarray  # float32 (n, 10)
    temperature: float  # fitted on the validation images
    robustness: pd.DataFrame  # of `robustness_table`, on `corrupted` images
    corrupted: int
    classes: pd.DataFrame  # of `per_class`
    slices: pd.DataFrame  # of `robustness.slices`, the worst first


def evaluate(
    model: str,
    dataset: str | None,
    promote: bool,
    depth: str = "standard",
    drawings: str | None = None,
) -> None:
    """Evaluate `model` on the test images of `dataset`, in a tracked run; promote it if proven.

    `drawings`: a file of recorded drawings to measure on, by default the project's own.
    """
    given = {"drawings": drawings} if drawings else {}
    with tracked("evaluate", model=model, promote=promote, depth=depth, **given):
        recorded = read_drawings(drawings)
        ref = registry.find(model)
        label_run(f"evaluate {'v' if ref.version else ''}{ref.version or Path(ref.uri).name}")
        dataset = dataset or ref.tags.get("dataset", "mnist")
        network = registry.load(ref)
        _refuse_other_shapes(network, model)
        test, training = load_test(dataset), load_training(dataset)

        print(f"Evaluating {ref}: validation images", end="", flush=True)
        on_validation = predict(network, training.validation.x)
        temperature = best_temperature(training.validation.y, on_validation)
        correct = on_validation.argmax(1) == training.validation.y
        measured = measure(network, test, temperature, depth == "full")
        print(".", flush=True)
        registry.log_metrics(ref, measured.metrics, log_dataset(test, dataset, "test"))
        if dataset != "fashion_mnist":
            drawn = measure_drawn(network, recorded, training.validation.y, on_validation)
            registry.log_metrics(ref, drawn)
        # Not one of the test images; the logged model has it from `train`.
        measured.metrics["val_accuracy"] = float(correct.mean())
        mlflow.log_metric("val_accuracy", measured.metrics["val_accuracy"])
        log_report(test, measured, str(ref))
        summary = _log_summary(ref, dataset, measured, len(test))
        print(summary)
        if promote and ref.name == registry.NAME:
            verdict = gate(ref, network, correct, training)
            print(verdict)
            summary += f"\n\n{verdict}"
        label_run(description=summary)


def measure_drawn(
    network: keras.Model, recorded: Drawings, labels: np.ndarray, on_validation: np.ndarray
) -> dict[str, float]:
    """Metrics on recorded drawings; logs those that are misread. `labels`: of validation."""
    deciding = deciding_drawings()
    known = certainty(labels, on_validation, deciding.y, predict(network, deciding.x))
    images = np.rint(255 * recorded.images).astype(np.uint8)
    read = predict(network, images)
    digits = recorded.labels >= 0
    shown = images[digits], recorded.labels[digits], calibrated(read[digits], known.temperature)
    mlflow.log_figure(plots.misclassified(*shown), "misread_drawings.png")
    return drawing_metrics(recorded.labels, recorded.writers, read, known)


def measure(network: keras.Model, test: Split, temperature: float, full: bool) -> Evaluation:
    """Every metric of `network` on the test images, each part announced on standard output."""
    print(", test images", end="", flush=True)
    started = time.perf_counter()
    probabilities = predict(network, test.x)
    metrics = {"evaluate_seconds": time.perf_counter() - started}
    metrics |= summary_metrics(test, probabilities, temperature)
    correct = probabilities.argmax(1) == test.y

    def predicted(images: np.ndarray) -> np.ndarray:
        return predict(network, images)

    def first(count: int) -> Split:
        return Split(test.x[:count], test.y[:count])

    print(", corruptions", end="", flush=True)
    some = test if full else first(CORRUPTED)
    under = under_corruption(predicted, some, every_strength=full)
    print(", behaviour", end="", flush=True)
    metrics |= robust_metrics(under) | behaviour(predicted, test if full else first(BEHAVIOUR))
    print(", attacks", end="", flush=True)
    metrics |= attacks(network, first(ATTACKED_IN_FULL if full else ATTACKED))
    return Evaluation(
        metrics,
        probabilities,
        temperature,
        robustness_table(under),
        len(some),
        per_class(test.y, probabilities.argmax(1)),
        slices(test, correct),
    )


def summary_metrics(split: Split, probabilities: np.ndarray, temperature: float) -> dict:
    """Accuracy, loss and calibration of probabilities (n, 10), each with its 95 % interval."""
    correct = int((probabilities.argmax(axis=1) == split.y).sum())
    interval = accuracy_interval(correct, len(split))
    metrics = with_interval("test_accuracy", correct / len(split), interval)
    # Beside it too: whoever read these names before finds them.
    metrics |= {"test_accuracy_low": interval[0], "test_accuracy_high": interval[1]}
    scaled = calibrated(probabilities, temperature)
    for name, metric, predictions in (
        ("test_loss", cross_entropy, probabilities),
        ("test_ece", expected_calibration_error, probabilities),
        ("calibration/ece_calibrated", expected_calibration_error, scaled),
    ):
        interval = bootstrap_interval(metric, split.y, predictions)
        metrics |= with_interval(name, metric(split.y, predictions), interval)
    return metrics | {"calibration/temperature": temperature}


def log_report(split: Split, measured: Evaluation, title: str) -> None:
    """Log the classification report, the tables, the plots and the wrong predictions."""
    predictions = measured.probabilities.argmax(axis=1)
    digits = range(10)
    options = {"labels": digits, "zero_division": 0}
    text = classification_report(split.y, predictions, digits=4, **options)
    mlflow.log_text(text, "classification_report.txt")
    report = classification_report(split.y, predictions, output_dict=True, **options)
    mlflow.log_dict(report, "classification_report.json")

    confusion = confusion_matrix(split.y, predictions, labels=digits)
    table = pd.DataFrame(confusion).rename_axis("true\\predicted")
    mlflow.log_text(table.to_csv(), "confusion_matrix.csv")
    for name in ("robustness", "classes", "slices"):
        file = "per_class.csv" if name == "classes" else f"{name}.csv"
        mlflow.log_text(getattr(measured, name).to_csv(index=False), file)

    right = f"{np.trace(confusion):,} of {len(split):,} right"
    scaled = calibrated(measured.probabilities, measured.temperature)
    bins = {
        "as it is": calibration(split.y, measured.probabilities),
        "with temperature": calibration(split.y, scaled),
    }
    clean = float((predictions == split.y)[: measured.corrupted].mean())
    for file, figure in {
        "confusion_matrix_plot.png": plots.confusion_matrix_plot(
            confusion, f"Confusion matrix, {title}: {right}"
        ),
        "confusion_matrix_error_plot.png": plots.confusion_matrix_error_plot(
            confusion, f"Confusion-matrix errors, {title}"
        ),
        "calibration.png": plots.reliability_diagram(bins, f"Calibration, {title}"),
        "misclassified.png": plots.misclassified(split.x, split.y, scaled),
        "robustness.png": plots.robustness(measured.robustness, clean, measured.corrupted, title),
    }.items():
        mlflow.log_figure(figure, file)


def _log_summary(ref: ModelRef, dataset: str, measured: Evaluation, images: int) -> str:
    """Log the model card, put it and the headline on the version; returns the headline in words."""
    metrics, worst = measured.metrics, measured.slices.iloc[0]
    origin = {"dataset": dataset} | {k: v for k, v in ref.tags.items() if k in ORIGIN}
    card = model_card(str(ref), origin, metrics, measured.classes, measured.slices)
    mlflow.log_text(card, "model_card.md")
    mlflow.set_tags({"dataset": dataset, "model_version": ref.version, "worst_slice": worst.slice})
    accuracy, robust = f"{metrics['test_accuracy']:.4f}", f"{metrics['robust_accuracy']:.4f}"
    interval = f"{metrics['test_accuracy_low']:.4f} to {metrics['test_accuracy_high']:.4f}"
    registry.tag(ref, test_accuracy=accuracy, test_accuracy_interval=interval)
    registry.describe(ref, card)
    low, high = (metrics[f"interval/robust_accuracy_{end}"] for end in ("low", "high"))
    return (
        f"{ref}: test accuracy {accuracy} (95 % interval {interval}), {images:,} images in "
        f"{metrics['evaluate_seconds']:.2f} s. Under corruption {robust} ({low:.4f} to "
        f"{high:.4f}); worst slice: {worst.slice}, {worst.accuracy:.4f}."
    )


def _refuse_other_shapes(network: keras.Model, model: str) -> None:
    if network.input_shape != (None, 28, 28, 1) or network.output_shape != (None, 10):
        raise UserError(
            f"model={model} maps {network.input_shape} to {network.output_shape}; "
            "evaluate needs (None, 28, 28, 1) to (None, 10)."
        )
