"""`mlflow run .`: train, evaluate and convert, as steps of one run."""

from mnist_cnn.convert import convert
from mnist_cnn.evaluate import evaluate
from mnist_cnn.learning.data import load_test
from mnist_cnn.recipes import Recipe, hyperparameters
from mnist_cnn.tracking import registry, runs
from mnist_cnn.train import train


def main(recipe: Recipe, seed: int, dataset: str, drawings: str | None = None) -> None:
    """The whole life of a model, in a parent run with one nested run a step."""
    settings = {"recipe": recipe.name, "seed": seed, "dataset": dataset, "drawings": drawings}
    with runs.tracked("main", **settings, **hyperparameters(recipe)):
        runs.name_run(f"main {recipe.name} seed {seed}")
        load_test(dataset)  # refused now, not by evaluate after an hour of training
        version = train(recipe, seed, dataset, drawings)
        model = f"models:/{registry.NAME}/{version}"
        runs.describe_run(f"{recipe.name}: {recipe.claim}.", f"Version {version}, in three steps.")
        evaluate(model, dataset, promote=True)
        convert(model, "out", "none", max_accuracy_loss=0)
