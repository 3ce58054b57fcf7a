"""`mlflow run . -e convert`: TensorFlow.js files, proven to answer as Keras does.

The files are written to a scratch folder, proven, and then put into `output`.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np

from mnist_cnn.browser import lowering, output_folder, page, proof, tfjs
from mnist_cnn.browser.drawings import Drawings
from mnist_cnn.browser.drawings import read as read_drawings
from mnist_cnn.browser.proof import Samples
from mnist_cnn.browser.tfjs import QUANTIZE, Written
from mnist_cnn.evaluation import certainty
from mnist_cnn.learning.adapter import Adapter, fits, fitted
from mnist_cnn.learning.data import load_test, load_training
from mnist_cnn.parameters import UserError
from mnist_cnn.tracking import registry
from mnist_cnn.tracking.runs import tracked

DIFFERENCE = 0.01  # standard deviations of the answers that quantize=auto may move them by


@dataclass(frozen=True)
class Tried:
    """One width of the weights: its folder, its figures, and what it lost on validation."""

    written: Written
    folder: Path
    figures: dict[str, float]
    lost: float
    relative: float


def convert(
    model: str | None,
    output: str,
    quantize: str,
    max_accuracy_loss: float,
    inputs: str | None = None,
    drawings: str | None = None,
    **options: Any,
) -> None:
    """Convert `model`, prove it in TensorFlow.js and put the files into the folder `output`.

    `drawings`: a file of recorded drawings to measure on, by default the project's own.
    """
    settings = {"output": output, "quantize": quantize, "max_accuracy_loss": max_accuracy_loss}
    given = {"model": model, "inputs": inputs, "drawings": drawings}
    settings |= {name: value for name, value in given.items() if value}
    with tracked("convert", **options, **settings):
        started = time.perf_counter()
        output_folder.check(output)
        recorded = read_drawings(drawings)
        source = registry.find(model) if model else default_source()
        mlflow.set_tag("model_version", source.version)
        network, reduced = lowering.ready(registry.load(source))
        samples, adapter = _samples(network, source, inputs)
        network = lowering.lowered(network)
        try:
            with tempfile.TemporaryDirectory(prefix="mnist_cnn-") as scratch:
                widths = QUANTIZE if quantize == "auto" else (quantize,)
                tried = _try(network, samples, Path(scratch), widths, options)
                best = _choose(tried, quantize, max_accuracy_loss)
                mlflow.log_artifacts(str(best.folder), "tfjs")
                figures = best.figures | _add_page(best, samples, source, adapter, recorded)
                output_folder.replace(output, best.folder)
        except OSError as error:
            raise UserError(
                f"the scratch folder {tempfile.gettempdir()} cannot be used: {error.strerror}."
            ) from None
        figures["convert_seconds"] = time.perf_counter() - started
        registry.log_metrics(source, figures)
        registry.tag(source, tfjs_agreement=f"{figures['tfjs_agreement']:.6g}")
        text = _table(tried)
        mlflow.log_text(text, "quantize.txt")
    print(text)
    if reduced:
        print("Its mixed or reduced precision was set aside: it is compared in float32.")
    target = Path(output).absolute()
    print(f"{source}: {best.written.quantize} files, proven in TensorFlow.js, are in {target}.")
    if "drawn_accuracy" in figures:
        print(f"{figures['drawn_accuracy']:.1%} of the recorded drawings are read rightly.")
        print(f"Draw a digit: open {target / 'digits.html'}, or: mlflow run . -e serve")


def default_source() -> registry.ModelRef:
    """The champion; while there is none, the newest version, and it says so."""
    champion = registry.champion()
    if champion:
        return champion
    newest = registry.find(f"models:/{registry.NAME}/latest")
    print(f"There is no champion yet: converting {newest}, the newest.")
    return newest


def _samples(
    network: Any, source: registry.ModelRef, inputs: str | None
) -> tuple[Samples, Adapter | None]:
    """What both sides answer; the validation and test images, if the model reads digits."""
    if inputs:
        return proof.given(network, inputs), None
    if fits(network):
        dataset = source.tags.get("dataset", "mnist")
        validation, test = load_training(dataset).validation, load_test(dataset)
        adapter = Adapter() if "recipe" in source.tags else fitted(network, validation)
        if adapter.reads:
            images = adapter.inputs(np.concatenate([validation.x, test.x]))
            labels = np.concatenate([validation.y, test.y])
            expected = proof.answers(network, [images], 500)
            return Samples([images], expected, labels, len(validation)), adapter
        print(f"It reads {adapter.accuracy:.0%} of some MNIST images: taken for another task.")
    return proof.drawn(network), None


def _try(
    network: Any, samples: Samples, scratch: Path, widths: tuple[str, ...], options: dict[str, Any]
) -> list[Tried]:
    """Files of each width, and what TensorFlow.js answers from them compared with Keras."""
    written = [Written(**options, quantize=width) for width in widths]
    folders = [scratch / width for width in widths]
    for folder, how in zip(folders, written, strict=True):
        folder.mkdir()
        tfjs.write(network, folder, how)
    jobs = [tfjs.Job(folder, samples.inputs, samples.batch) for folder in folders]
    return [
        _judged(network, samples, how, folder, found)
        for how, folder, found in zip(written, folders, tfjs.answers(jobs), strict=True)
    ]


def _judged(
    network: Any, samples: Samples, written: Written, folder: Path, found: tfjs.Answers
) -> Tried:
    """Raises UserError if the files do not answer, or unquantised ones not as Keras does."""
    if found.error:
        raise proof.refusal(network, folder, samples, found.error, found.layers)
    try:
        compared = proof.compare(samples.expected, found.outputs)
    except UserError as error:
        raise proof.refusal(network, folder, samples, str(error)) from None
    rest = slice(samples.validation, None)
    total, compressed = tfjs.sizes(folder)
    figures = {
        "tfjs_agreement": float(compared.same[rest].mean()),
        "tfjs_max_abs_diff": compared.difference,
        "tfjs_bytes": total,
        "tfjs_gzip_bytes": compressed,
        "tfjs_seconds_per_image": found.seconds_per_example,
    }
    if written.quantize == "none" and not compared.exact:
        wrong = int((~compared.same).sum())
        reason = (
            f"{wrong} of {len(compared.same)} answers differ, the largest difference is "
            f"{compared.difference:.2g}, {compared.relative:.2g} standard deviations"
        )
        raise proof.refusal(network, folder, samples, reason)
    lost = float(1 - compared.same.mean())  # without labels, a changed decision counts as lost
    if samples.labels is not None:
        right, keras_right = (
            outputs[0].argmax(-1) == samples.labels for outputs in (found.outputs, samples.expected)
        )
        figures["tfjs_test_accuracy"] = float(right[rest].mean())
        decide = slice(None, samples.validation)
        lost = float(keras_right[decide].mean() - right[decide].mean())
    return Tried(written, folder, figures, lost, compared.relative)


def _choose(tried: list[Tried], quantize: str, max_accuracy_loss: float) -> Tried:
    """The files to keep: for `auto` the smallest that lose nothing."""
    if quantize == "auto":
        harmless = [
            one
            for one in tried
            if one.lost <= 0 and ("tfjs_test_accuracy" in one.figures or one.relative <= DIFFERENCE)
        ]
        return min(harmless or tried[:1], key=lambda one: one.figures["tfjs_gzip_bytes"])
    (one,) = tried
    if quantize != "none" and one.lost > max_accuracy_loss:
        raise UserError(
            f"quantize={quantize} loses {one.lost:.4f} of accuracy on the validation images or, "
            "without labels, of the decisions, more than "
            f"max_accuracy_loss={max_accuracy_loss:g}; output stays as it was."
        )
    return one


def _table(tried: list[Tried]) -> str:
    lines = ["quantize     bytes  gzip bytes  agreement  difference/sd  test accuracy  ms an image"]
    for one in tried:
        figures = one.figures
        accuracy = figures.get("tfjs_test_accuracy")
        lines.append(
            f"{one.written.quantize:8} {figures['tfjs_bytes']:9,} "
            f"{figures['tfjs_gzip_bytes']:11,} {figures['tfjs_agreement']:10.4f} "
            f"{one.relative:14.2g} {'-' if accuracy is None else f'{accuracy:.4f}':>14} "
            f"{1000 * figures['tfjs_seconds_per_image']:12.2f}"
        )
    return "\n".join(lines)


def _add_page(
    best: Tried,
    samples: Samples,
    source: registry.ModelRef,
    adapter: Adapter | None,
    recorded: Drawings,
) -> dict[str, float]:
    """The page, if the model reads digits: metrics on the recorded drawings, misread ones logged.

    How certain is certain is decided on validation images and on generated drawings.
    """
    if adapter is None or source.tags.get("dataset") == "fashion_mnist":
        return {}
    assert samples.labels is not None

    def predict(images: np.ndarray) -> np.ndarray:
        (found,) = tfjs.answers([tfjs.Job(best.folder, [adapter.inputs(images)])])
        return adapter.probabilities(found.outputs[0])

    decide = slice(samples.validation)
    validation = samples.labels[decide], adapter.probabilities(samples.expected[0][decide])
    known, metrics, misread = certainty.read_drawings(
        predict, recorded.images, recorded.labels, recorded.writers, validation
    )
    mlflow.log_figure(misread, "misread_drawings.png")
    settings = page.Settings(best.written.output_format, **asdict(known), adapter=adapter)
    page.write(best.folder, settings)
    mlflow.log_artifact(str(best.folder / "digits.html"))
    return metrics
