"""`mlflow run .`: train, evaluate and convert, as steps of one run."""

from __future__ import annotations

from mnist_cnn.convert import convert
from mnist_cnn.evaluate import evaluate
from mnist_cnn.recipes import Recipe, hyperparameters
from mnist_cnn.tracking import registry
from mnist_cnn.tracking.runs import tracked
from mnist_cnn.train import train_version


def main(recipe: Recipe, seed: int, dataset: str) -> None:
    """The whole life of a model, in a parent run with one nested run a step."""
    settings = {"recipe": recipe.name, "seed": seed, "dataset": dataset}
    with tracked("main", **settings, **hyperparameters(recipe)):
        version = train_version(recipe, seed, dataset)
        model = f"models:/{registry.NAME}/{version}"
        evaluate(model, dataset, promote=True)
        convert(model, "out", "none", max_accuracy_loss=0)
    print("See it all: mlflow ui")
