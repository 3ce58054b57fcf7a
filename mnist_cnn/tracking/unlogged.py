"""Trained models that are not logged yet: a lost server or a kill after fit costs no training."""

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mnist_cnn.learning.data import cache_folder
from mnist_cnn.learning.fit import Fitted
from mnist_cnn.learning.model import build
from mnist_cnn.recipes import Recipe

KEPT = "The trained model is kept; the same command logs it without training again."
Metrics = list[tuple[str, float, int, int]]  # name, value, milliseconds, step


def cache_file(*decisive: object) -> Path:
    """The file of the model that is decided by all this: recipe, seed, data, versions."""
    digest = hashlib.sha256(repr(decisive).encode()).hexdigest()[:16]
    return cache_folder() / "kept" / f"{digest}.npz"


def load(path: Path, recipe: Recipe) -> tuple[Fitted, Metrics] | None:
    """The model kept in `path`, or None if there is none or the file is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            facts = json.loads(str(arrays["facts"]))
            model = build(recipe)
            model.set_weights([arrays[f"w{i}"] for i in range(len(model.weights))])
        return Fitted(model, facts["history"], facts["train_seconds"]), facts["metrics"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


@contextmanager
def until_logged(path: Path, fitted: Fitted, metrics: Metrics) -> Iterator[None]:
    """Keep the model in `path` while the block logs it; an error says that it is kept."""
    facts = {"history": fitted.history, "train_seconds": fitted.train_seconds, "metrics": metrics}
    weights = {f"w{i}": array for i, array in enumerate(fitted.model.get_weights())}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"partial-{path.name}")
        np.savez(partial, facts=json.dumps(facts), **weights)
        os.replace(partial, path)
    except OSError as error:  # a full disk is no reason to lose what can still be logged
        print(f"The trained model is not kept while it is logged: {error.strerror}.", flush=True)
    try:
        yield
    except BaseException as error:
        if path.exists():
            error.add_note(KEPT)
        raise
    path.unlink(missing_ok=True)
