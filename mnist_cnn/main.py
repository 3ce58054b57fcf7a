"""`mlflow run .`: train, then evaluate the version just made, as steps of one run."""

from __future__ import annotations

from mnist_cnn import registry
from mnist_cnn.evaluate import evaluate
from mnist_cnn.recipes import Recipe, hyperparameters
from mnist_cnn.tracking import tracked
from mnist_cnn.train import train_version


def main(recipe: Recipe, seed: int, dataset: str) -> None:
    """The whole life of a model, in a parent run with one nested run a step."""
    settings = {"recipe": recipe.name, "seed": seed, "dataset": dataset}
    with tracked("main", **settings, **hyperparameters(recipe)):
        version = train_version(recipe, seed, dataset)
        evaluate(f"models:/{registry.NAME}/{version}", dataset, promote=True)
    print("See it all: mlflow ui")
