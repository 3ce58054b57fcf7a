"""`mlflow run . -e evaluate`: where a model fails on the test images, and whether it is better."""

import time
from functools import partial
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from sklearn.metrics import classification_report, confusion_matrix

from mnist_cnn.browser import drawings as recordings
from mnist_cnn.evaluation import certainty, metrics, model_card, plots, robustness
from mnist_cnn.learning.adapter import fits, fitted
from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.data import Split, load_test, load_training
from mnist_cnn.learning.model import predict
from mnist_cnn.parameters import UserError
from mnist_cnn.promote import gate
from mnist_cnn.tracking import registry, runs
from mnist_cnn.train import log_dataset

# Images, the first, under corruption, for behaviour and under attack (40 gradients an image).
IMAGES: dict[str, tuple] = {"standard": (2000, 1000, 200), "full": (None, None, 2000)}


def evaluate(
    model: str,
    dataset: str | None,
    promote: bool,
    depth: str = "standard",
    drawings: str | None = None,
) -> None:
    """Evaluate `model` on the test images of `dataset`, in a tracked run; promote it if proven."""
    with runs.tracked("evaluate", model=model, promote=promote, depth=depth, drawings=drawings):
        recorded = recordings.read(drawings)
        ref = registry.find(model)
        runs.name_run(f"evaluate {ref.short}")
        dataset = dataset or ref.tags.get("dataset", "mnist")
        test, training = load_test(dataset), load_training(dataset)
        network = _as_ours(registry.load(ref), ref, training.validation)

        print(f"Evaluating {ref}: validation images", end="", flush=True)
        validation = training.validation.y, predict(network, training.validation.x)
        correct = validation[1].argmax(1) == validation[0]
        temperature = metrics.best_temperature(*validation)
        mlflow.log_metric("val_accuracy", float(correct.mean()))  # the model has it from `train`
        found, tables, probabilities = measure(network, test, temperature, depth)
        registry.log_metrics(ref, found, log_dataset(test, dataset, "test"))
        if dataset != "fashion_mnist":
            _, drawn, misread = certainty.read_drawings(
                lambda images: predict(network, np.rint(images).astype(np.uint8)),
                *(recorded, validation),
            )
            mlflow.log_figure(misread, "misread_drawings.png")
            registry.log_metrics(ref, drawn)
        log_report(test, probabilities, temperature, tables, str(ref))
        summary = _log_summary(ref, dataset, found | {"val_accuracy": correct.mean()}, tables)
        print(summary)
        judged = promote and ref.name == registry.NAME
        verdict = gate(ref, network, correct, training) if judged else "Nothing is promoted."
        print(verdict)
        runs.describe_run(summary, verdict.replace("\n", " "))


def measure(
    network: keras.Model, test: Split, temperature: float, depth: str
) -> tuple[dict[str, float], dict[str, pd.DataFrame], np.ndarray]:
    """Metrics, tables and probabilities (n, 10) of the test images; each part is announced."""
    tell, predicted = partial(print, end="", flush=True), partial(predict, network)
    parts = [Split(test.x[:count], test.y[:count]) for count in IMAGES[depth]]
    tell(", test images")
    started = time.perf_counter()
    answers = test.y, predict(network, test.x)
    seconds = {"evaluate_seconds": time.perf_counter() - started}
    predictions = answers[1].argmax(axis=1)
    correct, error = predictions == test.y, metrics.expected_calibration_error
    sure, honest = answers[1].max(1), metrics.calibrated(answers[1], temperature).max(1)
    intervals = {
        "test_accuracy": metrics.accuracy(correct),
        "test_loss": metrics.bootstrapped(metrics.cross_entropy, *answers),
        "test_ece": metrics.bootstrapped(error, correct, sure),
        "calibration/ece_calibrated": metrics.bootstrapped(error, correct, honest),
    }
    found = metrics.with_intervals(intervals) | seconds | {"calibration/temperature": temperature}
    found |= {end: found[f"interval/{end}"] for end in ("test_accuracy_low", "test_accuracy_high")}
    with robustness.corruptions(parts[0].x, depth == "full") as bad:
        tell(", attacks")
        found |= robustness.attacks(network, parts[2])
        tell(", behaviour")
        found |= robustness.behaviour(predicted, parts[1])
        classes, slices = metrics.per_class(test.y, predictions), robustness.slices(test, correct)
        tell(", corruptions")
        table, robust = robustness.under_corruption(predicted, parts[0].y, bad)
    tell(".\n")
    return found | robust, {"robustness": table, "per_class": classes, "slices": slices}, answers[1]


def log_report(
    split: Split, probabilities: np.ndarray, temperature: float, tables: dict, title: str
) -> None:
    """Log the classification report, the tables, the plots and the wrong predictions."""
    predictions = probabilities.argmax(axis=1)
    report = partial(classification_report, split.y, predictions, labels=range(10), zero_division=0)
    mlflow.log_text(report(digits=4), "classification_report.txt")
    mlflow.log_dict(report(output_dict=True), "classification_report.json")
    confusion = confusion_matrix(split.y, predictions, labels=range(10))
    counts = pd.DataFrame(confusion).rename_axis("true\\predicted").reset_index()
    for name, table in (tables | {"confusion_matrix": counts}).items():
        mlflow.log_text(table.to_csv(index=False), f"{name}.csv")

    scaled = metrics.calibrated(probabilities, temperature)
    curves = {"as it is": probabilities, "with temperature": scaled}
    right = predictions == split.y
    bins = {name: metrics.calibration(right, given.max(1)) for name, given in curves.items()}
    counted = f"confusion matrix, {right.sum():,} of {len(split):,} right"
    errors, wrong = (100 * metrics.error_matrix(confusion)).round(1), "errors, % of the true digit"
    clean = right[: tables["robustness"].images[0]]
    figures = {
        "confusion_matrix_plot": plots.confusion_matrix_plot(confusion, f"{title}: {counted}"),
        "confusion_matrix_error_plot": plots.confusion_matrix_plot(errors, f"{title}: {wrong}"),
        "calibration": plots.reliability_diagram(bins, f"Calibration, {title}"),
        "misclassified": plots.misclassified(split.x, split.y, scaled),
        "robustness": plots.robustness(tables["robustness"], clean, title),
    }
    for name, figure in figures.items():
        mlflow.log_figure(figure, f"{name}.png")


def _log_summary(ref: registry.ModelRef, dataset: str, found: dict, tables: dict) -> str:
    """Log the model card, put it and the headline on the version; returns the headline in words."""
    card = model_card.model_card(str(ref), ref.tags, dataset, found, tables)
    mlflow.log_text(card, "model_card.md")
    worst = tables["slices"].iloc[0]
    mlflow.set_tags({"dataset": dataset, "model_version": ref.version, "worst_slice": worst.slice})
    number = {name: f"{value:.4f}" for name, value in found.items()}
    accuracy, low, high = (number[f"test_accuracy{end}"] for end in ("", "_low", "_high"))
    registry.tag(ref, test_accuracy=accuracy, test_accuracy_interval=f"{low} to {high}")
    robust = "{robust_accuracy} ({interval/robust_accuracy_low} to {interval/robust_accuracy_high})"
    told = (
        f"Test accuracy {accuracy} (95 % interval {low} to {high}), "
        f"{tables['slices'].images.max():,} images in {found['evaluate_seconds']:.2f} s. Under "
        f"corruption {robust.format(**number)}; worst slice: {worst.slice}, {worst.accuracy:.4f}."
    )
    if ref.version:  # 5,000 characters are what MLflow's table holds; PostgreSQL refuses more
        text = f"{told}\n\n{card}"[:5000]  # the table of versions shows its beginning
        mlflow.MlflowClient().update_model_version(ref.name, ref.version, text)
    return told


def _as_ours(network: Any, ref: registry.ModelRef, validation: Split) -> Any:
    """A digit model of any maker as this project's. Raises UserError for other shapes."""
    if not fits(network):
        inputs, outputs = ([t.shape for t in e or ()] for e in (network.inputs, network.outputs))
        allowed = "(None, 28, 28, 1), (None, 28, 28) or (None, 784) to (None, 10)"
        raise UserError(f"model={ref.uri} maps {inputs} to {outputs}; allowed are {allowed}.")
    if "recipe" in ref.tags:
        return network
    adapter = fitted(network, validation)
    told = f"Given pixels from {adapter.low:g} to {adapter.high:g}, with outputs taken for"
    print(f"{told} {adapter.output}, it reads {adapter.accuracy:.0%} of some validation images.")
    return adapter.as_ours(network)
