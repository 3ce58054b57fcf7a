"""Figures for `mlflow ui`: every function returns a matplotlib Figure of its own."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mnist_cnn.evaluation.metrics import error_matrix

SURELY = 0.95  # an error of this probability or more is likely the label's, not the network's


def training_curves(history: dict[str, list[float]], title: str) -> Figure:
    """Loss and accuracy per epoch, on the training and the validation images."""
    epochs = range(1, len(history["loss"]) + 1)
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axis, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axis.plot(epochs, history[metric], "o-", label="training")
        axis.plot(epochs, history[f"val_{metric}"], "o-", label="validation")
        axis.set(xlabel="epoch", ylabel=metric, xticks=_ticks(len(epochs)))
        axis.grid(alpha=0.3)
        axis.legend()
    figure.suptitle(title)
    return figure


def _ticks(epochs: int) -> range:
    return range(1, epochs + 1, max(1, epochs // 10))


def confusion_matrix_plot(confusion: np.ndarray, title: str) -> Figure:
    """Counts (10, 10), truth down and prediction across; colours by the share of the row."""
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    return _matrix(shares, [[f"{count:,}" for count in row] for row in confusion], title)


def confusion_matrix_error_plot(confusion: np.ndarray, title: str) -> Figure:
    """Where each digit's errors go: the rows as percentages, the diagonal empty."""
    rates = error_matrix(confusion)
    texts = [[f"{100 * rate:.2g}" if rate else "" for rate in row] for row in rates]
    return _matrix(rates, texts, f"{title}\n% of the true digit")


def _matrix(colours: np.ndarray, texts: list[list[str]], title: str) -> Figure:
    figure = Figure(figsize=(8, 7.5), layout="constrained")
    axis = figure.subplots()
    axis.imshow(colours, cmap="Blues")
    top = colours.max() or 1.0
    for truth, row in enumerate(texts):
        for predicted, text in enumerate(row):
            ink = "white" if colours[truth, predicted] > top / 2 else "black"
            axis.text(predicted, truth, text, ha="center", va="center", color=ink, fontsize=9)
    axis.set(xticks=range(10), yticks=range(10), xlabel="predicted digit", ylabel="true digit")
    axis.set_title(title)
    return figure


def reliability(curves: dict[str, np.ndarray], title: str) -> Figure:
    """Accuracy against confidence, each curve of `metrics.calibration`; the diagonal is honest."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], "--", color="gray", label="perfectly calibrated")
    for (name, bins), below in zip(curves.items(), (-11, 5), strict=True):
        counts, confidence, accuracy = bins[bins[:, 0] > 0].T
        (line,) = axis.plot(confidence, accuracy, "o-", label=name)
        for x, y, count in zip(confidence, accuracy, counts, strict=True):
            axis.annotate(
                f"{int(count):,}",
                (x, y),
                (3, below),
                textcoords="offset points",
                fontsize=7,
                color=line.get_color(),
            )
    axis.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02), title=title)
    axis.grid(alpha=0.3)
    axis.legend()
    return figure


def robustness(table: pd.DataFrame, clean: float, images: int) -> Figure:
    """Accuracy, kind of corruption down and strength across; the published strength is bold."""
    grid = table.pivot(index="kind", columns="strength", values="accuracy")
    grid = grid.loc[table.kind.unique()]
    figure = Figure(figsize=(7, 8), layout="constrained")
    axis = figure.subplots()
    axis.imshow(grid, cmap="RdYlGn", vmin=0, vmax=1, aspect="auto")
    for row, kind in enumerate(grid.index):
        for column, strength in enumerate(grid.columns):
            value = grid.loc[kind, strength]
            chosen = ((table.kind == kind) & (table.strength == strength) & table.published).any()
            if value == value:  # not NaN
                axis.text(
                    column,
                    row,
                    f"{100 * value:.1f}",
                    ha="center",
                    va="center",
                    fontsize=9,
                    weight="bold" if chosen else "normal",
                )
    axis.set(xticks=range(grid.shape[1]), yticks=range(len(grid)), xlabel="strength")
    axis.set_xticklabels(grid.columns)
    axis.set_yticklabels(grid.index)
    axis.set_title(
        f"Accuracy under corruption, % of {images:,} test images (clean {100 * clean:.1f})\n"
        "bold: the published strength"
    )
    return figure


def misclassified(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, most: int = 200
) -> Figure:
    """All wrong answers as a grid, the surest first: image, truth → guess and its probability.

    Beyond `most` images the rest is only counted in the title.
    """
    guesses = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(guesses != labels)
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
        sure = confidence[i] >= SURELY
        axis.set_title(
            f"{labels[i]} → {guesses[i]}  {100 * confidence[i]:.0f} %{' ?' if sure else ''}",
            fontsize=8,
            color="red" if sure else "black",
        )
    more = f", the surest {most} shown" if len(wrong) > most else ""
    figure.suptitle(
        f"{len(wrong)} of {len(labels):,} wrong{more}: truth → guess, its probability\n"
        "red, with ?: so sure that the label itself may be wrong"
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
