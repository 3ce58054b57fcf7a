"""The model card of a version, from what was measured; sections of Mitchell et al. 2019."""

import re
from pathlib import Path
from string import Template

import pandas as pd

from mnist_cnn.evaluation.corruptions import CORRUPTIONS

ORIGIN = ("dataset", "dataset_digest", "recipe", "seed")  # tags of a version: how it was made


def model_card(title: str, tags: dict, dataset: str, metrics: dict, tables: dict) -> str:
    """Markdown. `tags`: of the version; `dataset`: the tested one; `metrics`: those of evaluate.

    `tables`: `per_class`, of `metrics.per_class`, and `slices`, of `robustness.slices`.
    """
    worst = tables["slices"].iloc[0]
    weakest = sorted((metrics[f"robust/{name}"], name) for name in CORRUPTIONS)[:3]
    return Template(Path(__file__).with_suffix(".md").read_text(encoding="utf-8")).substitute(
        # A template's names are words.
        {re.sub(r"\W", "_", name): f"{value:.4f}" for name, value in metrics.items()},
        title=title,
        details="\n".join(f"- {name}: {tags[name]}" for name in ORIGIN if name in tags),
        tested=dataset,
        dataset=tags.get("dataset", "?"),
        digest=tags.get("dataset_digest", "?"),
        weakest=", ".join(f"{name} ({value:.3f})" for value, name in weakest),
        worst=f"{worst['slice']}, {worst.accuracy:.4f} ({worst.low:.4f} to {worst.high:.4f})",
        classes=_table(tables["per_class"]),
        slices=_table(tables["slices"]),
    )


def _table(frame: pd.DataFrame) -> str:
    """Markdown: what, how many images, and figures, each with the two ends of its interval."""
    rows = [[*frame.columns[:2], *frame.columns[2::3]]]
    for row in frame.itertuples(index=False):
        threes = (row[i : i + 3] for i in range(2, len(row), 3))
        rows.append([*row[:2], *("{:.4f} ({:.4f} to {:.4f})".format(*three) for three in threes)])
    # MLflow's page sets no space between columns.
    head, *lines = ("| " + " | &nbsp; ".join(map(str, row)) + " |" for row in rows)
    return "\n".join([head, "| --- " * len(rows[0]) + "|", *lines])
