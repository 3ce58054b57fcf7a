"""`mlflow run . -e convert`: TensorFlow.js files, proven to answer as Keras does.

The files are written to a scratch folder, proven, and then put into `output`.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import mlflow
import numpy as np

from mnist_cnn.browser import drawings, output_folder, page, tfjs
from mnist_cnn.browser.tfjs import QUANTIZE, Written
from mnist_cnn.evaluation.metrics import best_temperature, calibrated, sure_from
from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.data import load_test, load_training
from mnist_cnn.learning.model import scaled
from mnist_cnn.parameters import UserError
from mnist_cnn.tracking import registry
from mnist_cnn.tracking.runs import tracked

LARGEST_DIFFERENCE = 1e-4  # of a probability, for float32
SURE = 0.999  # share of right validation answers among those that the page is sure of


@dataclass(frozen=True)
class Images:
    """What both sides answer: inputs float32, and the labels if there are any (test, validation).

    The validation images come first: they decide; the test images are for the report.
    """

    inputs: list[np.ndarray]
    labels: np.ndarray | None
    validation: int


def convert(
    model: str | None, output: str, quantize: str, max_accuracy_loss: float, **options: object
) -> None:
    """Convert `model`, prove it in TensorFlow.js and put the files in the place of `output`."""
    options = asdict(Written(**options))
    settings = {"output": output, "quantize": quantize, "max_accuracy_loss": max_accuracy_loss}
    with tracked("convert", **({"model": model} if model else {}), **options | settings):
        started = time.perf_counter()
        output_folder.check(output)
        source = registry.find(model) if model else default_source()
        mlflow.set_tag("model_version", source.version)
        network = registry.load(source)
        images = _images(network, source)
        given = images.inputs if len(images.inputs) > 1 else images.inputs[0]
        expected = _list(network.predict(given, batch_size=500, verbose=0))

        try:
            with tempfile.TemporaryDirectory(prefix="mnist_cnn-") as scratch:
                tried = []
                for width in QUANTIZE if quantize == "auto" else (quantize,):
                    folder = Path(scratch, width)
                    folder.mkdir()
                    written = Written(**options | {"quantize": width})
                    tfjs.write(network, folder, written)
                    tried.append(_proof(folder, written, images, expected))
                best = _choose(tried, quantize, max_accuracy_loss)
                folder = Path(scratch, best["quantize"])
                mlflow.log_artifacts(str(folder), "tfjs")
                has_page = (
                    images.labels is not None and source.tags.get("dataset") != "fashion_mnist"
                )
                if has_page:
                    best |= _drawn(folder, options["output_format"])
                    page.write(folder, _settings(images, expected[0], options))
                    mlflow.log_artifact(str(folder / "digits.html"))
                output_folder.replace(output, folder)
        except OSError as error:
            raise UserError(
                f"the scratch folder {tempfile.gettempdir()} cannot be used: {error.strerror}."
            ) from None

        figures = {
            key if key.startswith("drawn") else f"tfjs_{key}": value
            for key, value in best.items()
            if isinstance(value, int | float)
        }
        figures["convert_seconds"] = time.perf_counter() - started
        registry.log_metrics(source, figures)
        registry.tag(source, tfjs_agreement=f"{figures['tfjs_agreement']:.6g}")
        text = _table(tried)
        mlflow.log_text(text, "quantize.txt")
    target = Path(output).absolute()
    print(text)
    print(f"{source}: {best['quantize']} files, proven in TensorFlow.js, are in {target}.")
    if has_page:
        print(f"{best['drawn_accuracy']:.1%} of the recorded drawings are read rightly.")
        print(f"Draw a digit: open {target / 'digits.html'}, or: mlflow run . -e serve")


def _drawn(folder: Path, output_format: str) -> dict[str, float]:
    """Accuracy on the digits among the recorded drawings."""
    recorded = drawings.read()
    (answers,) = tfjs.answers(folder, output_format, [recorded.images]).outputs
    digits = recorded.labels >= 0
    return {"drawn_accuracy": float((answers.argmax(-1) == recorded.labels)[digits].mean())}


def _settings(images: Images, expected: np.ndarray, options: dict) -> page.Settings:
    """When the page says 'not sure': calibrated and decided on the validation images."""
    assert images.labels is not None
    labels, probabilities = images.labels[: images.validation], expected[: images.validation]
    temperature = best_temperature(labels, probabilities)
    sure = sure_from(labels, calibrated(probabilities, temperature), SURE)
    return page.Settings(options["output_format"], temperature, sure)


def default_source() -> registry.ModelRef:
    """The champion; while there is none, the newest version, and it says so."""
    champion = registry.champion()
    if champion:
        return champion
    newest = registry.find(f"models:/{registry.NAME}/latest")
    print(f"There is no champion yet: converting {newest}, the newest.")
    return newest


def _list(outputs: np.ndarray | list[np.ndarray] | dict[str, np.ndarray]) -> list[np.ndarray]:
    if isinstance(outputs, dict):
        return list(outputs.values())
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def _images(network: keras.Model, source: registry.ModelRef) -> Images:
    shapes = [tensor.shape for tensor in (*network.inputs, *network.outputs)]
    if shapes != [(None, 28, 28, 1), (None, 10)]:
        rng = np.random.default_rng(0)
        shapes = [[size or 8 for size in tensor.shape[1:]] for tensor in network.inputs]
        return Images([rng.random((100, *shape), np.float32) for shape in shapes], None, 0)
    dataset = source.tags.get("dataset", "mnist")
    validation, test = load_training(dataset).validation, load_test(dataset)
    inputs = scaled(np.concatenate([validation.x, test.x]))
    return Images([inputs], np.concatenate([validation.y, test.y]), len(validation))


def _proof(folder: Path, written: Written, images: Images, expected: list[np.ndarray]) -> dict:
    """Figures of one set of files; agreement, difference and accuracy on the test images."""
    found = tfjs.answers(folder, written.output_format, images.inputs)
    rest = slice(images.validation, None)
    largest = max(float(np.abs(a - b).max()) for a, b in zip(found.outputs, expected, strict=True))
    same = found.outputs[0].argmax(-1) == expected[0].argmax(-1)
    total, compressed = tfjs.sizes(folder)
    figures = {
        "quantize": written.quantize,
        "agreement": float(same[rest].mean()),
        "max_abs_diff": largest,
        "bytes": total,
        "gzip_bytes": compressed,
        "seconds_per_image": found.seconds_per_image,
    }
    if written.quantize == "none" and (not same.all() or largest >= LARGEST_DIFFERENCE):
        raise UserError(
            f"TensorFlow.js does not answer as Keras does: {int((~same).sum())} of {len(same)} "
            f"answers differ, the largest difference is {largest:.2g} (allowed: none, and below "
            f"{LARGEST_DIFFERENCE:g}); output stays as it was."
        )
    if images.labels is not None:
        right = found.outputs[0].argmax(-1) == images.labels
        keras_right = expected[0].argmax(-1) == images.labels
        figures["test_accuracy"] = float(right[rest].mean())
        decide = slice(None, images.validation)
        loss = float(keras_right[decide].mean() - right[decide].mean())
        figures["validation_loss_of_accuracy"] = loss
    return figures


def _choose(tried: list[dict], quantize: str, max_accuracy_loss: float) -> dict:
    """The files to keep: for `auto` the smallest that lose nothing on the validation images."""

    def lost(figures: dict) -> float:
        # Without labels, an answer that changed counts as lost.
        return figures.get("validation_loss_of_accuracy", 1 - figures["agreement"])

    if quantize == "auto":
        return min((f for f in tried if lost(f) <= 0), key=lambda f: f["gzip_bytes"])
    (figures,) = tried
    if lost(figures) > max_accuracy_loss:
        raise UserError(
            f"quantize={quantize} loses {lost(figures):.4f} of accuracy on the validation images, "
            f"more than max_accuracy_loss={max_accuracy_loss:g}; output stays as it was."
        )
    return figures


def _table(tried: list[dict]) -> str:
    lines = ["quantize     bytes  gzip bytes  agreement  test accuracy  ms an image"]
    for f in tried:
        accuracy = f"{f['test_accuracy']:.4f}" if "test_accuracy" in f else "-"
        lines.append(
            f"{f['quantize']:8} {f['bytes']:9,} {f['gzip_bytes']:11,} {f['agreement']:10.4f} "
            f"{accuracy:>14} {1000 * f['seconds_per_image']:12.2f}"
        )
    return "\n".join(lines)
