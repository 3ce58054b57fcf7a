"""`mlflow run . -e evaluate`: where a model fails on the test images, and whether it is better."""

import time
from functools import partial
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from sklearn.metrics import classification_report, confusion_matrix

from mnist_cnn.browser import drawings as recordings
from mnist_cnn.evaluation import certainty, metrics, plots, robustness
from mnist_cnn.evaluation.model_card import model_card
from mnist_cnn.learning.adapter import fits, fitted
from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.data import Split, load_test, load_training
from mnist_cnn.learning.model import predict
from mnist_cnn.parameters import UserError
from mnist_cnn.promote import gate
from mnist_cnn.tracking import registry
from mnist_cnn.tracking.runs import describe_run, name_run, tracked
from mnist_cnn.train import log_dataset

# Tags of a version that say how it was made.
ORIGIN = ("recipe", "seed", "dataset", "dataset_digest")

# So many images, the first, under corruption, for behaviour and under attack, at each depth: these
# take many predictions an image, an attack 40 gradients.
IMAGES: dict[str, tuple[int | None, ...]]
IMAGES = {"standard": (2000, 1000, 200), "full": (None, None, 2000)}


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
    with tracked("evaluate", model=model, promote=promote, depth=depth, drawings=drawings):
        recorded = recordings.read(drawings)
        ref = registry.find(model)
        name_run(f"evaluate {ref.short}")
        dataset = dataset or ref.tags.get("dataset", "mnist")
        test, training = load_test(dataset), load_training(dataset)
        network = _as_ours(registry.load(ref), ref, training.validation)

        print(f"Evaluating {ref}: validation images", end="", flush=True)
        validation = training.validation.y, predict(network, training.validation.x)
        correct = validation[1].argmax(1) == validation[0]
        temperature = metrics.best_temperature(*validation)
        found, tables, probabilities = measure(network, test, temperature, depth)
        print(".", flush=True)
        registry.log_metrics(ref, found, log_dataset(test, dataset, "test"))
        if dataset != "fashion_mnist":
            _, drawn, misread = certainty.read_drawings(
                lambda images: predict(network, np.rint(images).astype(np.uint8)),
                *(recorded.images, recorded.labels, recorded.writers),
                validation,
            )
            mlflow.log_figure(misread, "misread_drawings.png")
            registry.log_metrics(ref, drawn)
        log_report(test, probabilities, temperature, tables, str(ref))
        # Not one of the test images; the logged model has it from `train`.
        found["val_accuracy"] = float(correct.mean())
        mlflow.log_metric("val_accuracy", found["val_accuracy"])
        summary = _log_summary(ref, dataset, found, tables, len(test))
        print(summary)
        if promote and ref.name == registry.NAME:
            verdict = gate(ref, network, correct, training)
            print(verdict)
            summary += f"\n\n{verdict}"
        describe_run(summary)


def measure(
    network: keras.Model, test: Split, temperature: float, depth: str
) -> tuple[dict[str, float], dict[str, pd.DataFrame], np.ndarray]:
    """Metrics, tables and probabilities (n, 10) of `network` on the test images.

    Each part is announced on standard output. `temperature`: fitted on the validation images.
    """
    print(", test images", end="", flush=True)
    started = time.perf_counter()
    probabilities = predict(network, test.x)
    seconds = time.perf_counter() - started
    predictions = probabilities.argmax(axis=1)
    predicted = partial(predict, network)
    parts = [Split(test.x[:count], test.y[:count]) for count in IMAGES[depth]]
    print(", corruptions", end="", flush=True)
    under = robustness.under_corruption(predicted, parts[0], every_strength=depth == "full")
    print(", behaviour", end="", flush=True)
    behaviour = robustness.behaviour(predicted, parts[1])
    print(", attacks", end="", flush=True)
    attacks = robustness.attacks(network, parts[2])
    found = summary_metrics(test.y, probabilities, temperature)
    found |= {"evaluate_seconds": seconds} | robustness.robust_metrics(under) | behaviour | attacks
    tables = {
        "robustness": robustness.robustness_table(under),
        "per_class": metrics.per_class(test.y, predictions),
        "slices": robustness.slices(test, predictions == test.y),
    }
    return found, tables, probabilities


def summary_metrics(
    labels: np.ndarray, probabilities: np.ndarray, temperature: float
) -> dict[str, float]:
    """Accuracy, loss and calibration of probabilities (n, 10), each with its 95 % interval."""
    accuracy = metrics.accuracy(probabilities.argmax(axis=1) == labels)
    scaled = metrics.calibrated(probabilities, temperature)
    error = metrics.expected_calibration_error
    intervals = {
        "test_accuracy": accuracy,
        "test_loss": metrics.bootstrapped(metrics.cross_entropy, labels, probabilities),
        "test_ece": metrics.bootstrapped(error, labels, probabilities),
        "calibration/ece_calibrated": metrics.bootstrapped(error, labels, scaled),
    }
    # The ends beside it too: whoever read these names before finds them.
    found = {"test_accuracy_low": accuracy[1], "test_accuracy_high": accuracy[2]}
    for name, interval in intervals.items():
        found |= metrics.with_interval(name, interval)
    return found | {"calibration/temperature": temperature}


def log_report(
    split: Split,
    probabilities: np.ndarray,
    temperature: float,
    tables: dict[str, pd.DataFrame],
    title: str,
) -> None:
    """Log the classification report, the tables, the plots and the wrong predictions."""
    predictions = probabilities.argmax(axis=1)
    options = {"labels": range(10), "zero_division": 0}
    text = classification_report(split.y, predictions, digits=4, **options)
    mlflow.log_text(text, "classification_report.txt")
    report = classification_report(split.y, predictions, output_dict=True, **options)
    mlflow.log_dict(report, "classification_report.json")
    confusion = confusion_matrix(split.y, predictions, labels=range(10))
    counts = pd.DataFrame(confusion).rename_axis("true\\predicted")
    mlflow.log_text(counts.to_csv(), "confusion_matrix.csv")
    for name, table in tables.items():
        mlflow.log_text(table.to_csv(index=False), f"{name}.csv")

    scaled = metrics.calibrated(probabilities, temperature)
    bins = {
        "as it is": metrics.calibration(split.y, probabilities),
        "with temperature": metrics.calibration(split.y, scaled),
    }
    right = f"{np.trace(confusion):,} of {len(split):,} right"
    errors = 100 * metrics.error_matrix(confusion)
    clean = (predictions == split.y)[: tables["robustness"].images[0]]
    for file, figure in {
        "confusion_matrix_plot": plots.confusion_matrix_plot(
            confusion, ",d", f"Confusion matrix, {title}: {right}"
        ),
        "confusion_matrix_error_plot": plots.confusion_matrix_plot(
            errors, ".2g", f"Confusion-matrix errors, {title}\n% of the true digit"
        ),
        "calibration": plots.reliability_diagram(bins, f"Calibration, {title}"),
        "misclassified": plots.misclassified(split.x, split.y, scaled),
        "robustness": plots.robustness(tables["robustness"], clean, title),
    }.items():
        mlflow.log_figure(figure, f"{file}.png")


def _log_summary(
    ref: registry.ModelRef,
    dataset: str,
    found: dict[str, float],
    tables: dict[str, pd.DataFrame],
    images: int,
) -> str:
    """Log the model card, put it and the headline on the version; returns the headline in words."""
    worst = tables["slices"].iloc[0]
    origin = {"dataset": dataset} | {k: v for k, v in ref.tags.items() if k in ORIGIN}
    card = model_card(str(ref), origin, found, tables["per_class"], tables["slices"])
    mlflow.log_text(card, "model_card.md")
    mlflow.set_tags({"dataset": dataset, "model_version": ref.version, "worst_slice": worst.slice})
    accuracy, robust = f"{found['test_accuracy']:.4f}", f"{found['robust_accuracy']:.4f}"
    interval = f"{found['test_accuracy_low']:.4f} to {found['test_accuracy_high']:.4f}"
    registry.tag(ref, test_accuracy=accuracy, test_accuracy_interval=interval)
    if ref.version:  # 5,000 characters are what MLflow's table holds; PostgreSQL refuses more
        mlflow.MlflowClient().update_model_version(ref.name, ref.version, card[:5000])
    low, high = (found[f"interval/robust_accuracy_{end}"] for end in ("low", "high"))
    return (
        f"{ref}: test accuracy {accuracy} (95 % interval {interval}), {images:,} images in "
        f"{found['evaluate_seconds']:.2f} s. Under corruption {robust} ({low:.4f} to "
        f"{high:.4f}); worst slice: {worst.slice}, {worst.accuracy:.4f}."
    )


def _as_ours(network: Any, ref: registry.ModelRef, validation: Split) -> Any:
    """A digit model of any maker as this project's. Raises UserError for other shapes."""
    if not fits(network):
        inputs, outputs = ([t.shape for t in e or ()] for e in (network.inputs, network.outputs))
        raise UserError(
            f"model={ref.uri} maps {inputs} to {outputs}; allowed are (None, 28, 28, 1), "
            "(None, 28, 28) or (None, 784) to (None, 10)."
        )
    if "recipe" in ref.tags:
        return network
    adapter = fitted(network, validation)
    print(
        f"Given pixels from {adapter.low:g} to {adapter.high:g}, with outputs taken for "
        f"{adapter.output}, it reads {adapter.accuracy:.0%} of some validation images."
    )
    return adapter.as_ours(network)
