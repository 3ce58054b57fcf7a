"""Figures for `mlflow ui`: every function returns a matplotlib Figure of its own."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay

from mnist_cnn.evaluation.metrics import error_matrix

# An error at this confidence or more is likely the label's, not the network's.
LIKELY_MISLABELLED = 0.95
FEW = 10  # images; the accuracy of a bin of fewer says nothing


def training_curves(
    history: dict[str, list[float]], batches: dict[str, list[float]], title: str
) -> Figure:
    """Loss and accuracy by training step, on the training and the validation images.

    `history`: metrics by epoch, as Keras returns them. `batches`: `step`, `loss` and `accuracy` of
    the training images since the point before; empty if they were not recorded.
    """
    epochs = len(history["loss"])
    last = batches["step"][-1] if batches else epochs
    ends = last / epochs * np.arange(1, epochs + 1)
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axis, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        x, y = (batches["step"], batches[metric]) if batches else (ends, history[metric])
        axis.plot(x, y, "-" if batches else "o-", label="training")
        axis.plot(ends, history[f"val_{metric}"], "o-", label="validation, after each epoch")
        axis.set(xlabel="step" if batches else "epoch", ylabel=metric)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(title)
    return figure


def confusion_matrix_plot(confusion: np.ndarray, title: str) -> Figure:
    """Counts (10, 10), truth down and prediction across."""
    return _matrix(confusion, ",d", title)


def confusion_matrix_error_plot(confusion: np.ndarray, title: str) -> Figure:
    """Where each digit's errors go: the rows as percentages, the diagonal empty."""
    return _matrix(100 * error_matrix(confusion), ".2g", f"{title}\n% of the true digit")


def _matrix(values: np.ndarray, form: str, title: str) -> Figure:
    figure = Figure(figsize=(8, 7.5), layout="constrained")
    axis = figure.subplots()
    display = ConfusionMatrixDisplay(values)
    display.plot(cmap="Blues", ax=axis, colorbar=False, values_format=form)
    for text in display.text_.ravel():
        text.set_text(text.get_text() if text.get_text() != "0" else "")
    axis.set(xlabel="predicted digit", ylabel="true digit", title=title)
    return figure


def reliability_diagram(curves: dict[str, np.ndarray], title: str) -> Figure:
    """Accuracy against confidence, each curve of `metrics.calibration`.

    The area of a point is its share of the images; a bin of fewer than FEW images is a faint ring.
    """
    figure = Figure(figsize=(6, 6), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], "--", color="gray", label="perfectly calibrated")
    for (name, bins), colour in zip(curves.items(), ("tab:blue", "tab:orange"), strict=False):
        counts, confidence, accuracy = bins[bins[:, 0] > 0].T
        many = counts >= FEW
        axis.plot(confidence[many], accuracy[many], color=colour, linewidth=3, label=name)
        area = 40 + 400 * counts / counts.sum()
        axis.scatter(confidence[many], accuracy[many], area[many], color=colour)
        axis.plot(confidence[~many], accuracy[~many], "o", color=colour, mfc="none", alpha=0.4)
    axis.set(xlim=(0, 1.02), ylim=(0, 1.02))
    axis.set_xlabel("confidence", fontsize=14)
    axis.set_ylabel("accuracy", fontsize=14)
    axis.set_title(f"{title}\nrings: fewer than {FEW} images", fontsize=14)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=14)
    return figure


def robustness(table: pd.DataFrame, clean: float, images: int, title: str) -> Figure:
    """Accuracy under each corruption at its published strength, the worst on top, with intervals.

    `table`: of `robustness.robustness_table`; `clean`: accuracy on the same `images` uncorrupted.
    Other strengths, if measured, are small grey dots.
    """
    shown = table[table.published].sort_values("accuracy", ascending=False)
    figure = Figure(figsize=(8, 7), layout="constrained")
    axis = figure.subplots()
    colours = np.where(shown.unseen_in_training, "tab:orange", "tab:blue")
    spread = [shown.accuracy - shown.low, shown.high - shown.accuracy]
    axis.barh(shown.corruption, shown.accuracy, xerr=np.clip(spread, 0, 1), color=colours)
    others = table[~table.published]
    axis.plot(others.accuracy, others.corruption, ".", color="gray")
    for name, accuracy in zip(shown.corruption, shown.accuracy, strict=True):
        axis.text(0.01, name, f"{100 * accuracy:.1f}", va="center", color="white", weight="bold")
    axis.axvline(clean, color="black", linestyle="--")
    axis.set(xlim=(0, 1), xlabel=f"accuracy with its 95 % interval, {images:,} test images")
    axis.set_title(
        f"{title}: accuracy under corruption\n"
        f"dashed: uncorrupted ({100 * clean:.1f} %); orange: unlike anything in training"
    )
    return figure


def misclassified(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, most: int = 200
) -> Figure:
    """All wrong predictions as a grid, the most confident first: image, truth → prediction.

    Beyond `most` images the rest is only counted in the title.
    """
    predictions = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predictions != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    shown = wrong[:most]

    columns = 10
    rows = max(1, -(-len(shown) // columns))
    figure = Figure(figsize=(columns * 1.05, rows * 1.25 + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, i in zip(axes, shown, strict=False):
        axis.imshow(images[i, :, :, 0], cmap="gray_r")
        suspect = confidence[i] >= LIKELY_MISLABELLED
        axis.set_title(
            f"{labels[i]} → {predictions[i]}  {100 * confidence[i]:.0f} %{' ?' if suspect else ''}",
            fontsize=8,
            color="red" if suspect else "black",
        )
    more = f", the {most} most confident shown" if len(wrong) > most else ""
    figure.suptitle(
        f"{len(wrong)} of {len(labels):,} wrong{more}: truth → prediction, its probability\n"
        "red, with ?: so confident that the label itself may be wrong"
    )
    return figure


def accuracy_against_time(rows: pd.DataFrame) -> Figure:
    """Mean and standard deviation of `test_accuracy` and `train_seconds` for each `recipe`."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for name, mine in rows.groupby("recipe", sort=False):
        accuracy, seconds = 100 * mine.test_accuracy, mine.train_seconds
        spread = [values.std(ddof=1) if len(mine) > 1 else 0 for values in (seconds, accuracy)]
        axis.errorbar(
            seconds.mean(), accuracy.mean(), spread[1], spread[0], "o", capsize=3, label=name
        )
    axis.set(xscale="log", xlabel="seconds of fit", ylabel="test accuracy, %")
    axis.set_title("mean ± sd over seeds")
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    return figure


def scaling(rows: pd.DataFrame) -> Figure:
    """Mean and sd of time and accuracy against training images, and of time against threads."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    panels = (
        ("images", "train_seconds", "seconds of fit"),
        ("images", "error", "test errors, %"),
        ("threads", "train_seconds", "seconds of fit"),
    )
    rows = rows.assign(error=100 * (1 - rows.test_accuracy))
    for axis, (x, y, label) in zip(figure.subplots(1, 3), panels, strict=True):
        # The other of the two stays at its most.
        other = {"images": "threads", "threads": "images"}[x]
        for name, mine in rows[rows[other] == rows[other].max()].groupby("recipe", sort=False):
            at = mine.groupby(x)[y].agg(["mean", "std"]).fillna(0)
            axis.errorbar(at.index, at["mean"], at["std"], fmt="o-", capsize=3, label=name)
        axis.set(xlabel=f"training {x}" if x == "images" else x, ylabel=label, ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle("mean ± sd over seeds")
    return figure
