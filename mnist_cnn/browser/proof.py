"""The proof that TensorFlow.js answers as Keras does: the inputs, the comparison, the culprit."""

import bisect
import gzip
import math
import re
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mnist_cnn.browser import tfjs
from mnist_cnn.browser.keras2 import described, every
from mnist_cnn.learning.adapter import Adapter
from mnist_cnn.learning.backend import library, tf
from mnist_cnn.learning.untrusted import check_zip
from mnist_cnn.parameters import UserError, reason

COUNT, VALUES = 100, 5_000_000  # examples drawn, and numbers in all of them at most
OPEN = 96  # for a side that the model leaves open: backbones take 75 or more, halved five times
ROUNDING = (2e-4, 1e-5)  # shares of the answers' standard deviation and of the largest one


@dataclass(frozen=True)
class Samples:
    """Inputs (n, ...) of a model, what it answers; labels (n,) and adapter of a model of digits."""

    model: Any
    inputs: list[np.ndarray]
    expected: list[np.ndarray]
    labels: np.ndarray | None = None
    validation: int = 0  # so many decide; the rest, test images, are for the report
    adapter: Adapter | None = None


def answers(model: Any, inputs: list[np.ndarray], batch: int = 32) -> list[np.ndarray]:
    """What Keras answers, float32 (n, ...) an output. Raises UserError for NaN and infinity."""
    given = tfjs.packed(model, inputs)
    if len(inputs[0]) <= batch:  # at once: predict would compile it first
        outputs = model(given, training=False)
    else:
        outputs = model.predict(given, batch_size=batch, verbose=0)
    found = [np.asarray(output, np.float32) for output in tf.nest.flatten(outputs)]
    if not all(np.isfinite(output).all() for output in found):
        raise UserError("Keras answers with NaN or infinity, which proves nothing.")
    return found


def drawn(model: Any) -> Samples:
    """Random inputs that fit the model. Raises UserError if Keras answers none, or no number."""
    rng = np.random.default_rng(0)
    shapes = [[side or OPEN for side in tensor.shape[1:]] for tensor in model.inputs]
    count = int(np.clip(VALUES // max(map(math.prod, shapes)), 4, COUNT))
    count = model.inputs[0].shape[0] or count  # a stateful model has a batch of its own
    inputs = []
    for tensor, shape in zip(model.inputs, shapes, strict=True):
        first, kind = list(_first_layers(model, tensor)), tf.as_dtype(tensor.dtype)
        if kind == tf.string:
            raise UserError(f"layer {first[0].name!r} takes strings; TensorFlow.js takes numbers.")
        inputs.append(_values(rng, (count, *shape), first, kind))
    try:
        return Samples(model, inputs, answers(model, inputs, count))
    except Exception as error:  # of whatever Keras raises at inputs that the model does not take
        told = f"Keras does not answer random inputs ({reason(error)}); give inputs=samples.npz."
        raise UserError(told) from None


def _values(rng: Any, shape: tuple[int, ...], first: list[Any], kind: Any) -> np.ndarray:
    kinds = {type(layer).__name__: layer for layer in first}
    counts = [getattr(one, "input_dim", getattr(one, "num_tokens", None)) for one in first]
    padding = getattr(kinds.get("Masking"), "mask_value", None)
    if any(counts):
        count, padding = min(filter(None, counts)), 0
        values = rng.permuted(np.resize(np.arange(count), shape))
        values[..., :1] = np.maximum(values[..., :1], min(1, count - 1))  # nothing is all padding
    elif kind.is_integer or ("Rescaling" in kinds and np.max(kinds["Rescaling"].scale) < 0.1):
        values = rng.integers(0, 256, shape)
    else:
        values = rng.normal(size=shape)
        values[::2] = rng.random(values[::2].shape)  # as pixels are
    if padding is not None and len(shape) > 1:  # at the end, to lengths that vary
        values[np.arange(shape[1]) >= rng.integers(1, shape[1] + 1, (shape[0], 1))] = padding
    return values.astype(kind.as_numpy_dtype)


def _first_layers(model: Any, tensor: Any) -> Iterator[Any]:
    """The layers that an input goes into, in nested models too."""
    for layer in model.layers:
        for node in layer._inbound_nodes:
            for position, one in enumerate(tf.nest.flatten(node.input_tensors)):
                if one is tensor:
                    nested = hasattr(layer, "layers")
                    yield from _first_layers(layer, layer.inputs[position]) if nested else [layer]


def given(model: Any, path: str) -> Samples:
    """A user's own samples, one array an input. Raises UserError."""
    shapes = {tensor._keras_history[0].name: tuple(tensor.shape[1:]) for tensor in model.inputs}
    try:
        check_zip(Path(path))
        with np.load(path, allow_pickle=False) as archive:
            keys = shapes if set(shapes) <= set(archive.files) else archive.files
            pairs = zip(keys, model.inputs, strict=True)
            inputs = [archive[k].astype(tf.as_dtype(t.dtype).as_numpy_dtype) for k, t in pairs]
        if not len(inputs[0]):
            raise ValueError("it holds no example")
        return Samples(model, inputs, answers(model, inputs))
    except Exception as error:  # whatever zipfile, NumPy and Keras raise at a file from elsewhere
        told = f"inputs={path} does not fit the model, which takes an array for each of {shapes}"
        raise UserError(f"{told}: {reason(error)}.") from None


def compare(expected: list, found: list, exactly: bool = True) -> tuple[float, float, np.ndarray]:
    """The largest difference of all outputs; in standard deviations; bool (n,), same decisions.

    What is no probability is the same within 0.01 standard deviations. Raises UserError for other
    shapes, NaN, infinity and, `exactly`, for more than rounding.
    """
    shapes = [[output.shape[1:] for output in outputs] for outputs in (expected, found)]
    if shapes[0] != shapes[1]:
        raise UserError(f"it answers with shapes {shapes[1]}, Keras with {shapes[0]}")
    if not all(np.isfinite(output).all() for output in found):
        raise UserError("it answers with NaN or infinity")
    difference, relative, same = 0.0, 0.0, np.ones(len(expected[0]), bool)
    for one, other in zip(expected, found, strict=True):
        most, spread = float(np.abs(one - other).max()), float(one.std())
        rounding = ROUNDING[0] * spread + ROUNDING[1] * float(np.abs(one).max())
        sd = most / (spread or 1)
        if exactly and most > rounding:
            raise UserError(f"its answers differ by up to {most:.2g}, {sd:.2g} standard deviations")
        difference, relative = max(difference, most), max(relative, sd)
        probabilities = one.min() >= 0 and one.max() <= 1
        if probabilities and one.shape[-1] > 1 and np.allclose(one.sum(-1), 1, atol=1e-3):
            chosen = np.take_along_axis(one, other.argmax(-1)[..., None], -1)[..., 0]
            equal = one.max(-1) - chosen <= rounding  # a tie within rounding may fall either way
        elif probabilities:
            equal = ((one > 0.5) == (other > 0.5)) | (np.abs(one - 0.5) <= rounding)
        else:
            equal = np.abs(one - other) <= 0.01 * spread + rounding
        same &= equal.reshape(len(one), -1).all(1)
    return difference, relative, same


def judge(folder: Path, samples: Samples, found: dict, exactly: bool, **how: Any) -> dict:
    """Figures of the files in `folder`, written as `how` says; TensorFlow.js answered `found`.

    Raises UserError if the files do not answer, or, `exactly`, not as Keras does.
    """
    try:
        if "error" in found:
            raise UserError(re.split(r"\n|: \{|\. (?=[A-Z])|\.$", found["error"])[0][:200])
        difference, relative, same = compare(samples.expected, found["outputs"], exactly)
    except UserError as error:
        names = found.get("layers", [])
        known = [one for name in names for one in every(samples.model) if one.name == name]
        known += () if names else _first_different(samples, **how)
        what = described(known[0]) if known else f"layer {names[0]!r}" if names else "the model"
        raise UserError(f"{what} is not the same in TensorFlow.js: {error}") from None
    decide, rest = slice(samples.validation), slice(samples.validation, None)
    contents = [path.read_bytes() for path in folder.iterdir()]
    figures = {
        "tfjs_bytes": sum(map(len, contents)),
        "tfjs_gzip_bytes": sum(len(gzip.compress(content)) for content in contents),
        "tfjs_agreement": float(same[rest].mean()),
        "tfjs_max_abs_diff": difference,
        "tfjs_seconds_per_image": found["seconds_per_example"],
        "relative_difference": relative,
        "lost": float(1 - same.mean()),  # of decisions or, below, of accuracy on the validation
    }
    if samples.labels is not None:
        right = found["outputs"][0].argmax(-1) == samples.labels
        before = samples.expected[0].argmax(-1) == samples.labels
        figures["tfjs_test_accuracy"] = float(right[rest].mean())
        figures["lost"] = float(before[decide].mean() - right[decide].mean())
    return figures


def _first_different(samples: Samples, **how: Any) -> list[Any]:
    """The layer up to which all answers are the same, if not all layers answer the same."""
    model, inputs = samples.model, [array[:8] for array in samples.inputs]
    layers = [one for one in model.layers if type(one).__name__ != "InputLayer"]
    tensors = [tf.nest.flatten(layer._inbound_nodes[-1].outputs)[0] for layer in layers]

    def differs(count: int) -> bool:
        part = library(model).Model(model.inputs, tensors[:count])
        with suppress(UserError), tempfile.TemporaryDirectory() as scratch:
            tfjs.write(part, Path(scratch), **how)
            (found,) = tfjs.answers([(Path(scratch), inputs)])
            return not compare(answers(part, inputs), found["outputs"])
        return True

    at = bisect.bisect_left(range(1, len(tensors) + 1), True, key=differs)
    found = layers[at : at + 1]
    if found and hasattr(found[0], "layers"):
        into = tf.nest.flatten(found[0]._inbound_nodes[-1].input_tensors)
        taken = answers(library(model).Model(model.inputs, into), inputs)
        found = _first_different(Samples(found[0], taken, []), **how) or found
    return found
