"""`mlflow run . -e convert`: TensorFlow.js files, proven to answer as Keras does."""

import json
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from mnist_cnn.browser import drawings as recordings
from mnist_cnn.browser import keras2, node, output_folder, proof, tfjs
from mnist_cnn.evaluation import certainty
from mnist_cnn.learning.adapter import CLEARLY, Adapter, fits, fitted
from mnist_cnn.learning.data import load_test, load_training
from mnist_cnn.parameters import UserError, reason
from mnist_cnn.tracking import registry
from mnist_cnn.tracking.runs import describe_run, name_run, tracked


def convert(model: str | None, output: str, quantize: str, **options: Any) -> None:
    """Convert `model`, prove it and put the files into `output`; `options`: as on command line."""
    with tracked("convert", model=model, output=output, quantize=quantize, **options):
        others = ("drawings", "inputs", "max_accuracy_loss")
        drawings, inputs, most = (options.pop(name, None) for name in others)
        started = time.perf_counter()
        output_folder.check(output)
        node.modules()  # npm may fail
        recorded = recordings.read(drawings)
        newest = registry.find(model or f"models:/{registry.NAME}/latest")
        source = newest if model else registry.champion() or newest
        other = f", the champion; model={newest.uri} takes the newest" if source != newest else ""
        print(f"Converting {source}{other}.", flush=True)
        name_run(f"convert {source.short}")
        mlflow.set_tag("model_version", source.version)
        network, reduced = keras2.ready(registry.load(source))
        samples = _samples(network, source, inputs)
        with tempfile.TemporaryDirectory(prefix="mnist_cnn-") as scratch:
            tried = _try(samples, Path(scratch), quantize, options)
            best = _choose(tried, quantize, most)
            folder = Path(scratch, best)
            figures: dict[Any, float] = tried.loc[best].filter(like="tfjs_").to_dict()
            mlflow.log_artifacts(str(folder), "tfjs")
            if samples.adapter and source.tags.get("dataset") != "fashion_mnist":
                figures |= _add_page(folder, samples, recorded, source, figures)
            output_folder.replace(output, folder)
        figures["convert_seconds"] = time.perf_counter() - started
        registry.log_metrics(source, figures)
        registry.tag(source, tfjs_agreement=f"{figures['tfjs_agreement']:.6g}")
        target, width = Path(output).absolute(), best.replace("none", "float32").capitalize()
        told = [f"{width} files of {source}, proven in TensorFlow.js, are in {target}."]
        told.append(f"{figures['tfjs_bytes'] / 1000:,.0f} kB.")
        if "drawn_accuracy" in figures:
            told[1] += f" {figures['drawn_accuracy']:.1%} of recorded drawings are read rightly."
            told.append(f"Draw a digit: open {target / 'digits.html'}, or: mlflow run . -e serve")
        describe_run(*told[:2])
    tried = tried.rename(columns=lambda name: name.removeprefix("tfjs_"), index={"none": "float32"})
    print(tried.T.map("{:,.6g}".format).to_string())
    note = ["It was compared in float32, not in its own precision."] if reduced else []
    print(*note, *told, sep="\n")


def _samples(network: Any, source: registry.ModelRef, inputs: str | None) -> proof.Samples:
    """What both sides answer; the validation and test images, if the model reads digits."""
    if inputs:
        return proof.given(network, inputs)
    if fits(network):
        dataset = source.tags.get("dataset", "mnist")
        validation, test = load_training(dataset).validation, load_test(dataset)
        adapter = Adapter() if "recipe" in source.tags else fitted(network, validation)
        if adapter.accuracy >= CLEARLY:
            images = [adapter.inputs(np.concatenate([validation.x, test.x]))]
            known = np.concatenate([validation.y, test.y]), len(validation), adapter
            return proof.Samples(network, images, proof.answers(network, images, 500), *known)
        print(f"It reads {adapter.accuracy:.0%} of some MNIST images: taken for another task.")
    return proof.drawn(network)


def _try(samples: proof.Samples, into: Path, quantize: str, how: dict, final: bool = False) -> Any:
    """Figures of the files of each width, a row each. UserError says if the other format works."""
    widths = tfjs.QUANTIZE if quantize == "auto" else (quantize,)
    folders = [into / width for width in widths]
    try:
        for folder in folders:
            tfjs.write(samples.model, folder, folder.name, **how)
        found = tfjs.answers([(folder, samples.inputs) for folder in folders])
        pairs = zip(folders, found, strict=True)
        rows = [proof.judge(a, samples, one, a.name == "none", **how) for a, one in pairs]
        return pd.DataFrame(rows, index=list(widths))
    except Exception as error:  # whatever Keras, TensorFlow and the converter raise
        if final or isinstance(error, OSError):  # the disk
            raise
        other = tfjs.FORMATS[how.get("output_format") != tfjs.FORMATS[1]]
        works = "does not work either"
        with suppress(Exception):
            _try(samples, into / other, "none", how | {"output_format": other}, final=True)
            works = "works"
        raise UserError(f"{reason(error)}; output_format={other} {works}.") from None


def _choose(tried: pd.DataFrame, quantize: str, most: float) -> str:
    """The width to keep: `auto` loses no decision, nor moves answers by 0.01 of their deviation."""
    if quantize == "auto":
        close = ("tfjs_test_accuracy" in tried) | (tried.relative_difference <= 0.01)
        harmless = tried[(tried.lost <= 0) & close]
        return str(harmless.tfjs_gzip_bytes.idxmin()) if len(harmless) else "none"
    if quantize != "none" and (lost := tried.lost[quantize]) > most:
        what = f"quantize={quantize} loses {lost:.4f} of accuracy on the validation images (without"
        raise UserError(f"{what} labels: of the decisions), more than max_accuracy_loss={most:g}.")
    return quantize


def _add_page(folder: Path, samples: Any, recorded: Any, source: Any, figures: dict) -> dict:
    """Add the page to the files in `folder`; metrics of the drawings, misread ones are logged."""
    adapter = samples.adapter

    def predict(images: np.ndarray) -> np.ndarray:
        (found,) = tfjs.answers([(folder, [adapter.inputs(images)])])
        return adapter.probabilities(found["outputs"][0])

    decide = slice(samples.validation)
    validation = samples.labels[decide], adapter.probabilities(samples.expected[0][decide])
    known, metrics, misread = certainty.read_drawings(predict, recorded, validation)
    mlflow.log_figure(misread, "misread_drawings.png")
    network = f"{source.tags.get('recipe', 'model')}: {Path(str(source)).name}"
    kilobytes, accuracy = figures["tfjs_bytes"] / 1000, figures["tfjs_test_accuracy"]
    network += f", {kilobytes:,.0f} kB, {accuracy:.2%} of the test images right"
    settings = folder.with_suffix(".settings")
    settings.write_text(json.dumps(known | {"adapter": asdict(adapter), "network": network}))
    node.run("write_page.mjs", str(node.modules()), str(folder), str(settings))
    mlflow.log_artifact(str(folder / "digits.html"))
    return metrics
