"""The model card of a version, from what was measured; sections of Mitchell et al. 2019."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template

import pandas as pd

from mnist_cnn.evaluation.corruptions import CORRUPTIONS

# What the table of figures says, and the metric of each line.
FIGURES = {
    "test accuracy": "test_accuracy",
    "test loss": "test_loss",
    "calibration error": "test_ece",
    "temperature fitted on validation": "calibration/temperature",
    "calibration error with it": "calibration/ece_calibrated",
    "validation accuracy": "val_accuracy",
    "mean accuracy under MNIST-C": "robust_accuracy",
    "the same, corruptions unlike training's distortion": "robust/unseen_in_training",
    "predictions that stay under every shift by one pixel": "behaviour/shift_invariance",
    "under FGSM, epsilon 0.1": "attack/fgsm_0.1",
    "under FGSM, epsilon 0.3": "attack/fgsm_0.3",
    "under PGD, epsilon 0.1": "attack/pgd_0.1",
    "under PGD, epsilon 0.3": "attack/pgd_0.3",
    "confidence in a blank image": "behaviour/blank_confidence",
    "mean confidence in pure noise": "behaviour/noise_confidence",
}


def model_card(
    title: str,
    origin: Mapping[str, str],
    metrics: Mapping[str, float],
    classes: pd.DataFrame,
    slices: pd.DataFrame,
) -> str:
    """Markdown. `origin`: how the model was made; `metrics`: those of evaluate, by name.

    `classes`: of `metrics.per_class`; `slices`: of `robustness.slices`, the worst first.
    """
    worst = slices.iloc[0]
    weakest = sorted((metrics[f"robust/{name}"], name) for name in CORRUPTIONS)[:3]
    rows = [(words, _value(metrics, name)) for words, name in FIGURES.items()]
    template = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=title,
        details="\n".join(f"- {name}: {value}" for name, value in sorted(origin.items())),
        dataset=origin.get("dataset", "?"),
        digest=origin.get("dataset_digest", "?"),
        figures=_table(pd.DataFrame(rows, columns=["figure", "value"])),
        weakest=", ".join(f"{name} ({value:.3f})" for value, name in weakest),
        worst=f"{worst['slice']}, {worst.accuracy:.4f} ({worst.low:.4f} to {worst.high:.4f})",
        classes=_table(classes),
        slices=_table(slices),
    )


def _value(metrics: Mapping[str, float], name: str) -> str:
    low, high = (metrics.get(f"interval/{name.rsplit('/')[-1]}_{end}") for end in ("low", "high"))
    return f"{metrics[name]:.4f}" + (f" ({low:.4f} to {high:.4f})" if low is not None else "")


def _table(frame: pd.DataFrame) -> str:
    rows = [frame.columns, ["---"] * len(frame.columns), *frame.round(4).map(str).to_numpy()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
