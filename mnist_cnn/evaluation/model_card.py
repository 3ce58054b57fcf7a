"""The model card of a version, from what was measured; sections of Mitchell et al. 2019."""

from collections.abc import Mapping
from pathlib import Path
from string import Template

import pandas as pd

from mnist_cnn.evaluation.corruptions import CORRUPTIONS


class _Card(Template):
    braceidpattern = r"[a-z_0-9/.]+"  # names of metrics


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
    template = Path(__file__).with_suffix(".md").read_text(encoding="utf-8")
    return _Card(template).substitute(
        {name: _value(metrics, name) for name in metrics},
        title=title,
        details="\n".join(f"- {name}: {value}" for name, value in sorted(origin.items())),
        dataset=origin.get("dataset", "?"),
        digest=origin.get("dataset_digest", "?"),
        weakest=", ".join(f"{name} ({value:.3f})" for value, name in weakest),
        worst=f"{worst['slice']}, {worst.accuracy:.4f} ({worst.low:.4f} to {worst.high:.4f})",
        classes=_table(classes),
        slices=_table(slices),
    )


def _value(metrics: Mapping[str, float], name: str) -> str:
    low, high = (metrics.get(f"interval/{name.rsplit('/')[-1]}_{end}") for end in ("low", "high"))
    return f"{metrics[name]:.4f}" + (f" ({low:.4f} to {high:.4f})" if low is not None else "")


def _table(frame: pd.DataFrame) -> str:
    texts = frame.map(lambda value: f"{value:.4f}" if isinstance(value, float) else str(value))
    # MLflow's page sets no space between columns.
    heads = [f"&nbsp; {name}" for name in frame.columns]
    rows = [heads, ["---:"] * len(heads), *texts.to_numpy()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
