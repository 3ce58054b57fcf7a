"""The smallest network of each family of keras.applications, converted in both formats.

`python -m tests.applications > docs/applications.md` converts them all, in some ten minutes.
"""

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from mnist_cnn import cli
from mnist_cnn.learning.backend import keras

# The side of the smallest image that each takes.
SIDES = {
    "ConvNeXtTiny": 32,
    "DenseNet121": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "Xception": 71,
}
FORMATS = ("tfjs_layers_model", "tfjs_graph_model")


def network(name: str) -> keras.Model:
    """With random statistics, scales and shifts: those of a new network are 0 and 1, and hide."""
    keras.backend.clear_session()  # or the numbers in the layers' names go on
    side = SIDES[name]
    model = getattr(keras.applications, name)(weights=None, input_shape=(side, side, 3), classes=10)
    rng = np.random.default_rng(0)
    ranges = {"gamma": (0.8, 1.2), "moving_variance": (0.8, 1.2), "variance": (0.8, 1.2)}
    ranges |= dict.fromkeys(("beta", "moving_mean", "mean", "bias"), (-0.1, 0.1))
    for weight in model.weights:
        if weight.name in ranges:
            weight.assign(rng.uniform(*ranges[weight.name], weight.shape))
    return model


def said(name: str, output_format: str, folder: Path) -> str:
    """What convert says of a network: proven, with its size, or the sentence that refuses it."""
    path = folder / f"{name}.keras"
    if not path.exists():
        network(name).save(path)
    output, errors = io.StringIO(), io.StringIO()
    command = ["convert", "--model", str(path), "--output", str(folder / output_format / name)]
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = cli.run([*command, "--output_format", output_format])
    if code:
        return errors.getvalue().strip().removeprefix("mnist_cnn convert: ")
    assert "proven in TensorFlow.js" in output.getvalue()
    return "proven"


def document() -> None:
    """Print docs/applications.md."""
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{scratch}/mlflow.db"
        os.chdir(scratch)
        rows = []
        for name, side in SIDES.items():
            cells = [said(name, each, Path(scratch)).replace("|", "\\|") for each in FORMATS]
            rows.append(f"| {name} | {side} | {' | '.join(cells)} |")
            print(rows[-1], file=sys.stderr, flush=True)
    print(
        "# keras.applications\n\n"
        "What `convert` says to the smallest network of each family, on the smallest image that\n"
        "it takes, with random weights and random statistics of its BatchNorm layers. Written by\n"
        "`python -m tests.applications > docs/applications.md`; `pytest -m slow -k applications`\n"
        "holds to it.\n\n"
        "| network | side | `tfjs_layers_model` | `tfjs_graph_model` |\n| --- | --- | --- | --- |"
    )
    print("\n".join(rows))


if __name__ == "__main__":
    document()
