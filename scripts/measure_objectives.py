"""Which figure of few validation images tells best how good a network is: ranks, as Markdown.

    python -m scripts.measure_objectives [CONFIGURATIONS]

Random configurations of the space of `tune`, each trained on 5,500 MNIST images. What 500 others
say of them is ranked beside their accuracy on 20,000 more: Spearman's coefficient of correlation,
of all configurations and of the better half, where a sweep has to choose.
"""

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from mnist_cnn.cli import VERBS
from mnist_cnn.evaluation.metrics import likelihood
from mnist_cnn.learning.data import Split, load_training
from mnist_cnn.learning.fit import fit
from mnist_cnn.learning.model import predict
from mnist_cnn.parameters import wholes
from mnist_cnn.recipes import FAST
from scripts.measure_sweeps import markdown

NAMES = {"val_accuracy": "accuracy", "val_likelihood": "likelihood", "val_loss": "Keras's loss"}


def configuration(rng: np.random.Generator, choices: tuple[int, ...]) -> dict[str, Any]:
    """Random hyperparameters, within the space that `tune` has for `fast` by default."""
    return {
        "filters": tuple(int(rng.choice(choices)) for _ in range(3)),
        "learning_rate": float(np.exp(rng.uniform(np.log(0.02), np.log(0.5)))),
        "batch_size": int(rng.choice([32, 64, 128, 160])),
        "label_smoothing": float(rng.uniform(0, 0.2)),
    }


def main() -> None:
    """The table."""
    default = next(
        option.default for option in VERBS["tune"].params if option.name == "filters_choices"
    )
    choices = wholes(1, 1024, "filters").parse(str(default))
    every, rng = load_training("mnist"), np.random.default_rng(2000)
    x, y = every.train.x, every.train.y
    held_out, others = Split(x[5500:6000], y[5500:6000]), Split(x[6000:26000], y[6000:26000])
    data = replace(every, name="part", train=Split(x[:5500], y[:5500]), validation=held_out)
    rows = []
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 66):
        recipe = replace(FAST, epochs=3, **configuration(rng, choices))
        fitted = fit(recipe, data, seed=0)
        rows.append({name: fitted.history[name][-1] for name in ("val_accuracy", "val_loss")})
        rows[-1]["val_loss"] *= -1
        rows[-1]["val_likelihood"] = likelihood(held_out.y, predict(fitted.model, held_out.x))
        rows[-1]["truth"] = float((predict(fitted.model, others.x).argmax(1) == others.y).mean())
    table = pd.DataFrame(rows)
    better = table[table.truth >= table.truth.median()]
    found = [
        [told, *(f"{spearmanr(some[name], some.truth).statistic:.2f}" for some in (table, better))]
        for name, told in NAMES.items()
    ]
    print(markdown(pd.DataFrame(found, columns=["figure", f"all {len(rows)}", "better half"])))


if __name__ == "__main__":
    main()
