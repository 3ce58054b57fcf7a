"""`mlflow run . -e train`: a recipe, trained, logged and registered as the new candidate."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
from mlflow.data.numpy_dataset import NumpyDataset, from_numpy
from mlflow.entities import Metric

from mnist_cnn.browser.drawings import read
from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.data import Split, Training, load_training
from mnist_cnn.learning.fit import fit
from mnist_cnn.learning.model import scaled
from mnist_cnn.recipes import Recipe, hyperparameters
from mnist_cnn.tracking import registry, runs, unlogged
from mnist_cnn.tracking.failures import no_retries, retry_on_conflict

POINTS = 50  # of the learning curves by step, and one more for each epoch


def train(recipe: Recipe, seed: int, dataset: str, drawings: str | None = None) -> str:
    """Version number of the model, trained in a tracked run and now the candidate."""
    settings = {"recipe": recipe.name, "seed": seed, "dataset": dataset, "drawings": drawings}
    with runs.tracked("train", **settings, **hyperparameters(recipe)):
        runs.name_run(f"train {recipe.name} seed {seed}")
        data, about = load_training(dataset), runs.environment()
        settings["dataset_digest"] = data.digest
        runs.log_params({"dataset_digest": data.digest, **about})
        images = log_dataset(data.train, dataset, "training", data.digest)
        # Matplotlib comes while TensorFlow's threads work and Python waits for them.
        importing = ThreadPoolExecutor(1).submit(import_module, "mnist_cnn.evaluation.plots")

        taught = with_drawings(data, drawings) if drawings else data
        epochs = LogEpochs(tell=True)
        cache_file = unlogged.cache_file(recipe, seed, taught.digest, about)
        if kept := unlogged.load(cache_file, recipe):
            print("This model is trained already, and was not logged: it is logged now.")
            fitted, epochs.metrics = kept
        else:
            fitted = fit(recipe, taught, seed, callbacks=[epochs])
        plots = importing.result()

        with unlogged.until_logged(cache_file, fitted, epochs.metrics):
            epochs.deliver()
            runs.log_params({"parameter_count": fitted.model.count_params()})
            title = f"{recipe.name}, seed {seed}: fit {fitted.train_seconds:.1f} s"
            mlflow.log_figure(plots.training_curves(epochs.metrics, title), "training_curves.png")
            name, example = f"{recipe.name}-seed-{seed}", scaled(data.train.x[:1])
            model_id = _log_model(fitted.model, name, example)
            accuracy, loss = (fitted.history[f"val_{name}"][-1] for name in ("accuracy", "loss"))
            seconds = fitted.train_seconds
            figures = {"val_accuracy": accuracy, "train_seconds": seconds, "val_loss": loss}
            *_, (_, _, moment, step) = epochs.metrics  # so that the run has one value an epoch
            mlflow.log_metrics(figures, step, timestamp=moment, model_id=model_id, dataset=images)
            number = registry.register(f"models:/{model_id}", settings)
        result = f"val_accuracy {accuracy:.4f} after {seconds:.1f} s of fit"
        runs.describe_run(f"{recipe.name}: {recipe.claim}.", f"Version {number}: {result}.")
    print(f"Version {number} of {registry.NAME} is the new candidate: {result}.")
    return number


def log_dataset(split: Split, name: str, context: str, digest: str | None = None) -> NumpyDataset:
    """The images and labels as a dataset of MLflow, logged as an input of the active run."""
    name = Path(name).name + ("-test" if context == "test" else "")
    images = from_numpy(split.x, targets=split.y, name=name, digest=digest)
    retry_on_conflict(mlflow.log_input, images, context=context)
    return images


def with_drawings(data: Training, path: str) -> Training:
    """`data` and the drawings of a file, repeated to be one image in fifty. Raises UserError."""
    own = read(path)
    times = max(1, round(len(data.train) / 50 / len(own.labels)))
    images = np.repeat(np.rint(255 * own.images).astype(np.uint8), times, axis=0)
    labels = np.concatenate([data.train.y.astype(np.int32), np.repeat(own.labels, times)])
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()[:8]
    train = Split(np.concatenate([data.train.x, images]), labels)
    return replace(data, train=train, digest=data.digest[:8] + digest)


def _log_model(model: keras.Model, name: str, x: np.ndarray) -> str:
    # Or it looks through every file of every package for those that we name ourselves, and loads
    # each model again to try the example, as tests do for all.
    mlflow.utils.requirements_utils._MODULES_TO_PACKAGES = {}  # type: ignore
    mlflow.models.utils._validate_serving_input = lambda *_, **__: None
    return mlflow.tensorflow.log_model(
        model,
        name=name,
        signature=mlflow.models.infer_signature(x, model(x).numpy()),  # as MLflow does, untraced
        input_example=x,
        keras_model_kwargs={"save_format": "h5", "include_optimizer": False},  # half as large
        pip_requirements=[f"{name}=={version(name)}" for name in runs.PACKAGES],  # or half a minute
    ).model_id


class LogEpochs(keras.callbacks.Callback):
    """Sends the metrics of every epoch, the first as step 1, and by training step `batch/…`.

    What cannot be sent waits, in order, for the next epoch, and the last epoch for `deliver`:
    MLflow's asynchronous logging would lose it when its retries end, and orders nothing.
    """

    def __init__(self, tell: bool = False) -> None:
        super().__init__()
        self.tell = tell  # in a line for each epoch that fits 80 columns
        self.metrics: unlogged.Metrics = []
        self.sent = 0
        self.before = (0, np.zeros(2))  # steps of this epoch at the last point of the curves, sums

    def _add(self, metrics: dict, step: int) -> None:
        now = int(time.time() * 1000)
        self.metrics += [(name, float(value), now, step) for name, value in metrics.items()]

    def on_train_batch_end(self, batch: int, logs: dict) -> None:  # noqa: D102
        steps, done, (before, sums) = self.params["steps"], batch + 1, self.before
        if done < steps and done - before < steps * self.params["epochs"] // POINTS:
            return
        # Keras gives means since the epoch began; a curve needs those since the last point.
        now = done * np.array([logs["loss"], logs["accuracy"]])
        loss, accuracy = (now - sums) / (done - before)
        rate = self.model.optimizer.learning_rate
        point = {"batch/loss": loss, "batch/accuracy": accuracy, "batch/learning_rate": rate}
        self._add(point, int(self.model.optimizer.iterations))
        self.before = (done, now) if done < steps else (0, np.zeros(2))

    def on_epoch_end(self, epoch: int, logs: dict) -> None:  # noqa: D102
        self._add(logs, epoch + 1)
        if self.tell:
            told = "accuracy {accuracy:.4f}, val_accuracy {val_accuracy:.4f}, "
            told += "val_loss {val_loss:.4f}, {epoch_seconds:.1f} s"
            print(f"Epoch {epoch + 1}/{self.params['epochs']}:", told.format(**logs), flush=True)
        if epoch + 1 < self.params["epochs"]:
            with no_retries(), suppress(mlflow.MlflowException):  # a lost server stops no training
                self.deliver()

    def deliver(self) -> None:
        """Send what waits to the active run. Raises MlflowException."""
        waiting = [Metric(*metric) for metric in self.metrics[self.sent :]]
        waiting.sort(key=lambda metric: "/" in metric.key)  # MLflow's pages show the first first
        mlflow.MlflowClient().log_batch(runs.active_run().info.run_id, waiting)
        self.sent += len(waiting)
