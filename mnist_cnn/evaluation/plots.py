"""Figures for `mlflow ui`: every function returns a matplotlib Figure of its own."""

import logging
from typing import Any

import numpy as np
import pandas as pd

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where it keeps fonts, if not in HOME
from matplotlib.figure import Figure  # noqa: E402


def _axes(title: str, width: float, height: float, columns: int = 1) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def training_curves(metrics: list[tuple[str, float, int, int]], title: str) -> Figure:
    """Loss and accuracy by training step, from name, value, time, step (of `val_…` the epoch)."""
    table = pd.DataFrame(metrics, columns=["name", "value", "time", "step"])
    curves = table.pivot(index="step", columns="name", values="value")
    figure, axes = _axes(title, 11, 4.5, columns=2)
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        training, validation = (curves[f"{kind}{name}"].dropna() for kind in ("batch/", "val_"))
        validation.index *= training.index[-1] / validation.index[-1]
        axis.plot(training, label="training")  # not by pandas, which imports pyplot for it
        axis.plot(validation, "o-", label="validation, after each epoch")
        shown = pd.concat([training.iloc[len(training) // 10 :], validation])  # the start is steep
        space = 0.05 * np.ptp(shown) + 1e-3
        axis.set(xlabel="step", ylabel=name, ylim=(shown.min() - space, shown.max() + space))
        axis.grid(alpha=0.3)
        axis.legend()
    return figure


def confusion_matrix_plot(values: np.ndarray, title: str) -> Figure:
    """A matrix (10, 10), truth down and prediction across."""
    from sklearn.metrics import ConfusionMatrixDisplay  # half a second, and `train` needs it not

    figure, (axis,) = _axes(title, 8, 7.5)
    display = ConfusionMatrixDisplay(values).plot(cmap="Blues", ax=axis, colorbar=False)
    for text in display.text_.ravel():
        text.set_visible(text.get_text() != "0")
    axis.set(xlabel="predicted digit", ylabel="true digit")
    return figure


def reliability_diagram(curves: dict[str, np.ndarray], title: str) -> Figure:
    """Accuracy against confidence, each curve of `metrics.calibration`; few images: small dots."""
    figure, (axis,) = _axes(title, 6, 6)
    axis.plot([0, 1], [0, 1], "--", color="gray", label="perfectly calibrated")
    for name, (counts, confidence, accuracy) in curves.items():
        areas = 1000 * np.sqrt(counts / counts.sum())
        axis.scatter(confidence, accuracy, areas, label=name, alpha=0.7)
    axis.set(xlabel="confidence", ylabel="accuracy")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=14, markerscale=0.5, loc="lower right")
    return figure


def robustness(table: pd.DataFrame, clean: np.ndarray, title: str) -> Figure:
    """Accuracy under each corruption at its published strength, the worst on top, with intervals.

    `table`: of `robustness.under_corruption`; `clean`: booleans (n,), correct if uncorrupted.
    """
    shown = table[table.published].sort_values("accuracy", ascending=False)
    title += f": accuracy under corruption\ndashed: uncorrupted ({100 * clean.mean():.1f} %)"
    others = table[~table.published]
    dots = "; dots: other strengths" if len(others) else ""
    figure, (axis,) = _axes(f"{title}; orange: unlike anything in training{dots}", 8, 7)
    colours = np.where(shown.unseen_in_training, "tab:orange", "tab:blue")
    spread = np.clip([shown.accuracy - shown.low, shown.high - shown.accuracy], 0, 1)
    axis.barh(shown.corruption, shown.accuracy, xerr=spread, color=colours)
    figures = (100 * shown.accuracy).map("   {:.1f}".format)  # a bar may be too short for it
    axis.set_yticks(range(len(shown)), shown.corruption + figures)
    axis.plot(others.accuracy, others.corruption, "k.")
    axis.axvline(clean.mean(), color="black", linestyle="--")
    axis.set(xlim=(0, 1), xlabel=f"accuracy with its 95 % interval, {len(clean):,} test images")
    return figure


def misclassified(images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray) -> Figure:
    """The wrong predictions as a grid, the 200 most confident: image, truth → prediction."""
    predictions, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predictions != labels)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:200]
    rows = max(1, -(-len(shown) // 10))
    more = ", the 200 most confident shown" if len(wrong) > 200 else ""
    title = f"{len(wrong)} of {len(labels):,} wrong{more}: truth → prediction, its probability"
    title += "\nred, with ?: so confident that the label itself may be wrong"
    figure, (axis,) = _axes(title, 10.5, rows * 1.25 + 0.6)
    for place, i in enumerate(shown):  # all on one axis: an axis each would take seconds
        top, left = 42 * (place // 10), 34 * (place % 10)
        box = (left, left + 28, top + 28, top)
        axis.imshow(images[i, :, :, 0], cmap="gray_r", extent=box)
        mark, colour = (" ?", "red") if confidence[i] >= 0.95 else ("", "black")
        text = f"{labels[i]} → {predictions[i]}  {100 * confidence[i]:.0f} %{mark}"
        axis.text(left + 14, top - 2, text, ha="center", fontsize=8, color=colour)
    axis.set(xlim=(-3, 337), ylim=(42 * rows - 12, -12))
    axis.set_axis_off()
    return figure
