"""`mlflow run . -e train`: a recipe, trained, logged and registered as the new candidate."""

from __future__ import annotations

import time
from contextlib import suppress

import mlflow
import numpy as np
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from mnist_cnn.evaluation import plots
from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.data import Training, load_training
from mnist_cnn.learning.fit import Fitted, fit
from mnist_cnn.learning.model import scaled
from mnist_cnn.recipes import Recipe, hyperparameters
from mnist_cnn.tracking import registry, unlogged
from mnist_cnn.tracking.runs import (
    PACKAGES,
    environment,
    log_params,
    no_retries,
    pinned,
    retry_on_conflict,
    tracked,
)

SIGNATURE = ModelSignature(
    inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 28, 28, 1))]),
    outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 10))]),
)


def train(recipe: Recipe, seed: int, dataset: str) -> None:
    """Train `recipe` and register the model; see `train_version`."""
    train_version(recipe, seed, dataset)


def train_version(recipe: Recipe, seed: int, dataset: str) -> str:
    """Version number of the model, trained in a tracked run and now the candidate."""
    settings = {"recipe": recipe.name, "seed": seed, "dataset": dataset}
    with tracked("train", **settings, **hyperparameters(recipe)):
        data = load_training(dataset)
        log_params({"dataset_digest": data.digest, **environment()})
        retry_on_conflict(
            mlflow.log_input,
            mlflow.data.from_numpy(
                data.train.x, targets=data.train.y, name=_short(dataset), digest=data.digest
            ),
            context="training",
        )

        log_epochs = LogEpochs()
        place = unlogged.place(recipe, seed, data.digest, environment())
        fitted = unlogged.load(place, recipe)
        if fitted:
            print("This model is trained already, and was not logged: it is logged now.")
            for epoch in range(len(fitted.history["loss"])):
                log_epochs.on_epoch_end(epoch, {k: v[epoch] for k, v in fitted.history.items()})
        else:
            fitted = fit(recipe, data, seed, callbacks=[log_epochs])

        with unlogged.until_logged(place, fitted):
            log_epochs.deliver()
            mlflow.log_metric("train_seconds", fitted.train_seconds)
            log_params({"parameter_count": fitted.model.count_params()})
            title = f"{recipe.name}, seed {seed}: fit {fitted.train_seconds:.1f} s"
            mlflow.log_figure(plots.training_curves(fitted.history, title), "training_curves.png")
            version = _register(recipe, fitted, data, settings)
    print(
        f"Version {version} of {registry.NAME} is the new candidate: val_accuracy "
        f"{fitted.history['val_accuracy'][-1]:.4f} after {fitted.train_seconds:.1f} s of fit."
    )
    return version


def _register(recipe: Recipe, fitted: Fitted, data: Training, settings: dict) -> str:
    logged = mlflow.tensorflow.log_model(
        fitted.model,
        name="model",
        signature=SIGNATURE,
        input_example=scaled(data.train.x[:1]),
        # The optimiser's state would double the file and serve nobody.
        keras_model_kwargs={"save_format": "h5", "include_optimizer": False},
        # Explicit, or MLflow spends half a minute inferring them.
        pip_requirements=pinned(*PACKAGES),
    )
    tags = {name: str(value) for name, value in settings.items()}
    tags |= {
        "dataset_digest": data.digest,
        "val_accuracy": f"{fitted.history['val_accuracy'][-1]:.4f}",
        "parameter_count": str(fitted.model.count_params()),
    }
    return registry.register(logged.model_uri, tags).version


def _short(dataset: str) -> str:
    return dataset.rstrip("/").rsplit("/", 1)[-1]


class LogEpochs(keras.callbacks.Callback):
    """Sends the metrics of every epoch to the active run, the first epoch as step 1.

    What cannot be sent waits for the next epoch, in order, and at last for `deliver`: MLflow's
    asynchronous logging would lose it when its retries end, and orders nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[list[Metric]] = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:  # noqa: D102
        now = int(time.time() * 1000)
        self.waiting.append(
            [Metric(name, float(value), now, epoch + 1) for name, value in (logs or {}).items()]
        )
        # A lost server must not hold up the training.
        with no_retries(), suppress(MlflowException):
            self.deliver()

    def deliver(self) -> None:
        """Send what waits. Raises MlflowException."""
        while self.waiting:
            mlflow.MlflowClient().log_batch(mlflow.active_run().info.run_id, self.waiting[0])
            del self.waiting[0]
