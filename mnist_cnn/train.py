"""`mlflow run . -e train`: a recipe, trained, logged and registered as the new candidate."""

from __future__ import annotations

import hashlib
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
from mlflow.data.dataset import Dataset
from mlflow.data.numpy_dataset import from_numpy
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from mnist_cnn.browser.drawings import read
from mnist_cnn.evaluation import plots
from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.data import Split, Training, load_training
from mnist_cnn.learning.fit import Fitted, fit
from mnist_cnn.learning.model import scaled
from mnist_cnn.recipes import Recipe, hyperparameters
from mnist_cnn.tracking import registry, unlogged
from mnist_cnn.tracking.failures import no_retries, retry_on_conflict
from mnist_cnn.tracking.runs import (
    PACKAGES,
    active_run,
    environment,
    label_run,
    log_params,
    pinned,
    tracked,
)

SIGNATURE = ModelSignature(
    inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 28, 28, 1))]),
    outputs=Schema([TensorSpec(np.dtype(np.float32), (-1, 10))]),
)
POINTS = 50  # of the learning curves by step, and one more for each epoch


def train(recipe: Recipe, seed: int, dataset: str, drawings: str | None = None) -> None:
    """Train `recipe` and register the model; see `train_version`."""
    train_version(recipe, seed, dataset, drawings)


def train_version(recipe: Recipe, seed: int, dataset: str, drawings: str | None = None) -> str:
    """Version number of the model, trained in a tracked run and now the candidate.

    `drawings`: a file of recorded drawings to learn from too.
    """
    settings = {"recipe": recipe.name, "seed": seed, "dataset": dataset}
    settings |= {"drawings": drawings} if drawings else {}
    with tracked("train", **settings, **hyperparameters(recipe)):
        label_run(f"train {recipe.name} seed {seed}")
        data = load_training(dataset)
        log_params({"dataset_digest": data.digest, **environment()})
        images = log_dataset(data.train, dataset, "training", data.digest)

        taught = with_drawings(data, drawings) if drawings else data
        log_epochs = LogEpochs()
        cache_file = unlogged.cache_file(recipe, seed, taught.digest, environment())
        fitted = unlogged.load(cache_file, recipe)
        if fitted:
            print("This model is trained already, and was not logged: it is logged now.")
            log_epochs.log_again(fitted)
        else:
            fitted = fit(recipe, taught, seed, callbacks=[log_epochs, PrintEpochs()], quiet=True)
            fitted = replace(fitted, batches=log_epochs.batches)

        with unlogged.until_logged(cache_file, fitted):
            log_epochs.deliver()
            log_params({"parameter_count": fitted.model.count_params()})
            title = f"{recipe.name}, seed {seed}: fit {fitted.train_seconds:.1f} s"
            curves = plots.training_curves(fitted.history, fitted.batches, title)
            mlflow.log_figure(curves, "training_curves.png")
            model_id = _log_model(recipe, seed, fitted, data)
            mlflow.log_metrics(
                {"train_seconds": fitted.train_seconds}, model_id=model_id, dataset=images
            )
            log_epochs.link(model_id, images)
            tags = {name: str(value) for name, value in settings.items()}
            tags["dataset_digest"] = data.digest
            version = registry.register(f"models:/{model_id}", tags)
        result = (
            f"val_accuracy {fitted.history['val_accuracy'][-1]:.4f} after "
            f"{fitted.train_seconds:.1f} s of fit"
        )
        label_run(description=f"{recipe.name}: {recipe.claim}.\n\nVersion {version}: {result}.")
    print(f"Version {version} of {registry.NAME} is the new candidate: {result}.")
    return version


def log_dataset(split: Split, dataset: str, context: str, digest: str | None = None) -> Dataset:
    """The images and labels as a dataset of MLflow, logged as an input of the active run."""
    name = Path(dataset).name + ("-test" if context == "test" else "")
    images = from_numpy(split.x, targets=split.y, name=name, digest=digest)
    retry_on_conflict(mlflow.log_input, images, context=context)
    return images


def with_drawings(data: Training, path: str) -> Training:
    """`data` with the drawings of a file among the training images, as one image in fifty.

    They are repeated for it, for a person draws a few dozen. Raises UserError.
    """
    own = read(path)
    times = max(1, round(len(data.train) / 50 / len(own.labels)))
    images = np.repeat(np.rint(255 * own.images).astype(np.uint8), times, axis=0)
    labels = np.concatenate([data.train.y.astype(np.int32), np.repeat(own.labels, times)])
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()[:8]
    train = Split(np.concatenate([data.train.x, images]), labels)
    return replace(data, train=train, digest=data.digest[:8] + digest)


def _log_model(recipe: Recipe, seed: int, fitted: Fitted, data: Training) -> str:
    keras.config.disable_interactive_logging()  # MLflow tries the example, with a progress bar
    logged = mlflow.tensorflow.log_model(
        fitted.model,
        name=f"{recipe.name}-seed-{seed}",
        signature=SIGNATURE,
        input_example=scaled(data.train.x[:1]),
        # The optimiser's state would double the file and serve nobody.
        keras_model_kwargs={"save_format": "h5", "include_optimizer": False},
        # Explicit, or MLflow spends half a minute inferring them.
        pip_requirements=pinned(*PACKAGES),
    )
    keras.config.enable_interactive_logging()
    return logged.model_id


class PrintEpochs(keras.callbacks.Callback):
    """A line for each epoch that fits 80 columns; its progress too, if a person is watching."""

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:  # noqa: D102
        if sys.stdout.isatty():
            share = (batch + 1) / self.params["steps"]
            print(f"\rTraining: {share:.0%} of the epoch", end="", flush=True)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:  # noqa: D102
        logs = logs or {}
        print(
            f"{chr(13) if sys.stdout.isatty() else ''}Epoch {epoch + 1}/{self.params['epochs']}: "
            f"accuracy {logs['accuracy']:.4f}, val_accuracy {logs['val_accuracy']:.4f}, "
            f"val_loss {logs['val_loss']:.4f}, {logs['epoch_seconds']:.1f} s",
            flush=True,
        )


class LogEpochs(keras.callbacks.Callback):
    """Sends the metrics of every epoch to the active run, the first epoch as step 1.

    Among them the learning curves by training step, `batch/…`. What cannot be sent waits for the
    next epoch, in order, and at last for `deliver`: MLflow's asynchronous logging would lose it
    when its retries end, and orders nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[list[Metric]] = []
        self.last: list[Metric] = []  # of the last epoch
        self.batches: dict[str, list[float]] = {}  # step, loss, accuracy, learning_rate
        self.sent = 0  # points of `batches` that were handed to MLflow
        self.seen = 0  # steps of this epoch that `batches` holds
        self.sums = np.zeros(2)  # of loss and accuracy over those steps

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:  # noqa: D102
        self.seen, self.sums = 0, np.zeros(2)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:  # noqa: D102
        steps, epochs = self.params["steps"], self.params["epochs"]
        done = batch + 1
        if not logs or (done < steps and done - self.seen < steps * epochs // POINTS):
            return
        # Keras gives means since the epoch began; a curve needs those since the last point.
        sums = done * np.array([logs["loss"], logs["accuracy"]])
        loss, accuracy = (sums - self.sums) / (done - self.seen)
        point = {
            "step": int(self.model.optimizer.iterations),
            "loss": float(loss),
            "accuracy": float(accuracy),
            "learning_rate": float(self.model.optimizer.learning_rate),
        }
        for name, value in point.items():
            self.batches.setdefault(name, []).append(value)
        self.seen, self.sums = done, sums

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:  # noqa: D102
        now = int(time.time() * 1000)
        logs = logs or {}
        self.last = [Metric(name, float(value), now, epoch + 1) for name, value in logs.items()]
        self.waiting += [self.last, self._curves(now)]
        # A lost server must not hold up the training.
        with no_retries(), suppress(MlflowException):
            self.deliver()

    def _curves(self, now: int) -> list[Metric]:
        """The points of the learning curves that were not sent yet."""
        names = [name for name in self.batches if name != "step"]
        points = list(zip(*self.batches.values(), strict=True))[self.sent :]
        self.sent += len(points)
        return [
            Metric(f"batch/{name}", value, now, int(step))
            for step, *values in points
            for name, value in zip(names, values, strict=True)
        ]

    def log_again(self, fitted: Fitted) -> None:
        """Send the metrics of a model that was trained earlier."""
        self.batches = fitted.batches
        for epoch in range(len(fitted.history["loss"])):
            self.on_epoch_end(epoch, {k: v[epoch] for k, v in fitted.history.items()})

    def deliver(self) -> None:
        """Send what waits. Raises MlflowException."""
        while self.waiting:
            mlflow.MlflowClient().log_batch(active_run().info.run_id, self.waiting[0])
            del self.waiting[0]

    def link(self, model_id: str, dataset: Dataset) -> None:
        """Put the last validation figures on the logged model as well."""
        mlflow.MlflowClient().log_batch(
            active_run().info.run_id,
            # The same moments, so that the run keeps one value for each epoch.
            [
                Metric(m.key, m.value, m.timestamp, m.step, model_id, dataset.name, dataset.digest)
                for m in self.last
                if m.key in ("val_accuracy", "val_loss")
            ],
        )
