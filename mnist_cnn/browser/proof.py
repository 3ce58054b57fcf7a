"""The proof that TensorFlow.js answers as Keras does: the inputs, the comparison, the culprit."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mnist_cnn.browser import tfjs
from mnist_cnn.browser.keras2_topology import GRAPH
from mnist_cnn.browser.lowering import leaves
from mnist_cnn.learning.backend import keras, legacy_keras, tf
from mnist_cnn.learning.untrusted import check_zip
from mnist_cnn.parameters import UserError

COUNT, VALUES = 100, 5_000_000  # examples drawn, and numbers in all of them at most
SIZES = (16, 32, 64, 128, 224, 331)  # tried for a side that the model leaves open
ROUNDING = (2e-4, 1e-5)  # shares of the answers' standard deviation and of the largest one
# Layers behind which the values of an input still mean the same.
PASSED = frozenset(
    """Dropout SpatialDropout1D GaussianNoise GaussianDropout AlphaDropout Masking
    Reshape Flatten Permute RepeatVector ZeroPadding2D Cropping2D TimeDistributed""".split()
)


@dataclass(frozen=True)
class Samples:
    """Inputs (n, ...), what Keras answers to them, and the labels (n,) if there are any.

    The first `validation` examples decide, the rest (test images) are for the report.
    """

    inputs: list[np.ndarray]
    expected: list[np.ndarray]
    labels: np.ndarray | None = None
    validation: int = 0

    @property
    def batch(self) -> int:
        """Examples that go through TensorFlow.js at a time."""
        return max(1, min(250, VALUES // 5 // max(array[0].size for array in self.inputs)))


def answers(model: Any, inputs: list[np.ndarray], batch: int = 32) -> list[np.ndarray]:
    """What Keras answers, float32 (n, ...) an output."""
    outputs = model.predict(tfjs.packed(model, inputs), batch_size=batch, verbose=0)
    return [np.asarray(output, np.float32) for output in tf.nest.flatten(outputs)]


def drawn(model: Any) -> Samples:
    """Random inputs that fit the model. Raises UserError if Keras answers none, or no number."""
    for tensor in model.inputs:
        if tensor.dtype == "string":
            first = [*_first_layers(model, tensor)][-1]
            raise UserError(
                f"layer {first.name!r} is a {type(first).__name__}, which takes strings; "
                "TensorFlow.js takes numbers: leave it out, and give what it puts out."
            )
    reason = ""
    for size in SIZES:
        inputs = _inputs(model, size)
        try:
            return Samples(inputs, answers(model, inputs, len(inputs[0])))
        except Exception as error:  # of an input too small for the model, among others
            told = re.search(r"\w+Error: .*|assertion failed.*", str(error)) or re.search(
                ".+", str(error)
            )
            reason = reason or (told[0] if told else type(error).__name__)[:200]
        if not any(None in tensor.shape[1:] for tensor in model.inputs):
            break
    raise UserError(f"Keras does not answer random inputs ({reason}); give inputs=samples.npz.")


def _inputs(model: Any, size: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [[side or size for side in tensor.shape[1:]] for tensor in model.inputs]
    count = int(np.clip(VALUES // max(1, *(np.prod(shape) for shape in shapes)), 4, COUNT))
    count = model.inputs[0].shape[0] or count  # a stateful model has a batch of its own
    return [
        _values(rng, (count, *shape), tensor, list(_first_layers(model, tensor)))
        for tensor, shape in zip(model.inputs, shapes, strict=True)
    ]


def _values(rng: Any, shape: tuple[int, ...], tensor: Any, first: list[Any]) -> np.ndarray:
    kinds = {type(layer).__name__: layer for layer in first}
    whole = tf.as_dtype(tensor.dtype).is_integer
    counts = [getattr(one, "input_dim", getattr(one, "num_tokens", None)) for one in first]
    if any(counts):
        count = min(filter(None, counts))
        values = rng.permuted(np.resize(np.arange(count), shape).ravel()).reshape(shape)
        if len(shape) == 2:  # padded at the end, to lengths that vary
            values[np.arange(shape[1]) >= rng.integers(1, shape[1] + 1, (shape[0], 1))] = 0
            values[:, 0] = np.maximum(values[:, 0], min(1, count - 1))  # nothing is all padding
        return values.astype(np.int32 if whole else np.float32)
    if whole or ("Rescaling" in kinds and np.max(kinds["Rescaling"].scale) < 0.1):
        return rng.integers(0, 256, shape).astype(np.int32 if whole else np.float32)
    # Half as pixels are, half on both sides of 0.
    values = np.where(
        rng.permuted(np.arange(shape[0]) % 2)[(..., *[None] * (len(shape) - 1))] == 0,
        rng.random(shape),
        rng.normal(size=shape),
    )
    if (
        "BatchNormalization" in kinds
        and kinds["BatchNormalization"].moving_mean.shape == shape[-1:]
    ):
        mean, variance = kinds["BatchNormalization"].get_weights()[-2:]
        values = mean + values * np.sqrt(variance)
    if "Masking" in kinds and len(shape) > 2:
        ends = rng.integers(1, shape[1] + 1, (shape[0], 1))
        values[np.arange(shape[1]) >= ends] = kinds["Masking"].mask_value
    return values.astype(np.float32)


def _first_layers(model: Any, tensor: Any) -> Iterator[Any]:
    """The layers that an input meets, up to the first that change what its values mean."""
    for layer in model.layers:
        for node in () if type(layer).__name__ == "InputLayer" else layer._inbound_nodes:
            given = tf.nest.flatten(_either(node, "keras_inputs", "input_tensors"))
            for position, one in enumerate(given):
                if one is not tensor:
                    continue
                yield layer
                if isinstance(getattr(layer, "layers", None), list):
                    yield from _first_layers(layer, layer.inputs[position])
                elif type(layer).__name__ in PASSED:
                    outputs = _either(node, "output_tensors", "outputs")
                    for output in tf.nest.flatten(outputs):
                        yield from _first_layers(model, output)


def _either(node: Any, *names: str) -> Any:
    """An attribute of a node under its name in Keras 2 or in Keras 3."""
    return next(getattr(node, name) for name in names if hasattr(node, name))


def given(model: Any, path: str) -> Samples:
    """A user's own samples, one array an input. Raises UserError."""
    names = [tensor._keras_history[0].name for tensor in model.inputs]
    try:
        check_zip(Path(path))
        with np.load(path, allow_pickle=False) as archive:
            keys = names if set(names) <= set(archive.files) else archive.files
            arrays = [archive[key] for key in keys]
    except Exception as error:  # whatever zipfile and NumPy raise at a file from elsewhere
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"inputs={path} cannot be read as .npz: {reason[0]}") from None
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    fits = len(arrays) == len(shapes) and all(
        array.dtype.kind in "fiub"
        and len(array) == len(arrays[0]) > 0
        and len(array.shape) == len(shape) + 1
        and all(side in (None, own) for side, own in zip(shape, array.shape[1:], strict=True))
        and np.isfinite(array).all()
        for array, shape in zip(arrays, shapes, strict=True)
    )
    if not fits:
        wanted = ", ".join(f"{n}: (n, {str(s)[1:]}" for n, s in zip(names, shapes, strict=True))
        raise UserError(
            f"inputs={path} does not fit the model; allowed are finite numbers, an array of the "
            f"same n for each input ({wanted})."
        )
    whole = [tf.as_dtype(tensor.dtype).is_integer for tensor in model.inputs]
    inputs = [a.astype(np.int32 if w else np.float32) for a, w in zip(arrays, whole, strict=True)]
    return Samples(inputs, answers(model, inputs))


@dataclass(frozen=True)
class Comparison:
    """How far what was found is from what was expected, over all outputs.

    `difference` is the largest; `relative` the largest in standard deviations of its output;
    `same` (n,) whether an example's decisions are the same, or where an output takes none,
    its numbers within 0.01 standard deviations; `exact` whether only rounding differs.
    """

    difference: float
    relative: float
    same: np.ndarray
    exact: bool


def compare(expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> Comparison:
    """Raises UserError if an output is missing, has another shape, or is NaN or infinite."""
    shapes = [[output.shape[1:] for output in outputs] for outputs in (expected, found)]
    if shapes[0] != shapes[1]:
        raise UserError(f"TensorFlow.js answers with shapes {shapes[1]}, Keras with {shapes[0]}.")
    for name, outputs in (("Keras", expected), ("TensorFlow.js", found)):
        if not all(np.isfinite(output).all() for output in outputs):
            raise UserError(
                f"{name} answers with NaN or infinity, which proves nothing; if that is the "
                "inputs' fault, give your own: inputs=samples.npz."
            )
    difference = relative = 0.0
    same, exact = np.ones(len(expected[0]), bool), True
    for one, other in zip(expected, found, strict=True):
        largest, spread, scale = np.abs(one - other).max(), one.std(), np.abs(one).max()
        rounding = ROUNDING[0] * spread + ROUNDING[1] * scale
        exact &= bool(largest <= rounding)
        difference, relative = max(difference, largest), max(relative, largest / (spread or 1))
        same &= _same(one, other, rounding, spread)
    return Comparison(float(difference), float(relative), same, exact)


def _same(one: np.ndarray, other: np.ndarray, rounding: float, spread: float) -> np.ndarray:
    """Whether each example's decision is the same; a tie within rounding may fall either way."""
    probabilities = one.min() >= 0 and one.max() <= 1
    if probabilities and one.shape[-1] > 1 and np.allclose(one.sum(-1), 1, atol=1e-3):
        chosen = np.take_along_axis(one, other.argmax(-1)[..., None], -1)[..., 0]
        same = one.max(-1) - chosen <= rounding
    elif probabilities:
        same = ((one > 0.5) == (other > 0.5)) | (np.abs(one - 0.5) <= rounding)
    else:
        same = np.abs(one - other) <= 0.01 * spread + rounding
    return same.reshape(len(one), -1).all(1)


def refusal(
    model: Any, folder: Path, samples: Samples, error: str, layers: Sequence[str] = ()
) -> UserError:
    """What TensorFlow.js does not do as Keras does, by the layer and its options if it is found."""
    named = {one.name: one for one in leaves(model)}
    found = next((named[name] for name in layers if name in named), None)
    error = error.strip().splitlines()[0][:200]
    if found is None:
        found = _first_different(model, folder, samples)
    if found is None:
        return UserError(f"TensorFlow.js does not answer as Keras does: {error}")
    before = [*named.values()][: [*named].index(found.name)] if found.name in named else []
    masked = any(getattr(one, "mask_zero", type(one).__name__ == "Masking") for one in before)
    return UserError(
        f"layer {found.name!r} ({_described(found, masked)}) does something else in TensorFlow.js: "
        f"{error.rstrip('.')}; {GRAPH}."
    )


def _first_different(model: Any, folder: Path, samples: Samples) -> Any | None:
    """The first layer whose output differs."""
    chosen = [
        layer
        for layer in model.layers
        if len(layer._inbound_nodes) == 1
        and type(layer).__name__ != "InputLayer"
        and not isinstance(layer.output, list | tuple | dict)
    ]
    library = keras if isinstance(model, keras.Model) else legacy_keras()
    inputs = [array[: samples.batch] for array in samples.inputs]
    names = tuple(layer.name for layer in chosen)
    (found,) = tfjs.answers([tfjs.Job(folder, inputs, samples.batch, names)])
    if not chosen or found.error:
        return None
    parts = library.Model(model.inputs, [layer.output for layer in chosen])
    for layer, one, other in zip(chosen, answers(parts, inputs), found.outputs, strict=True):
        if one.shape != other.shape or not compare([one], [other]).exact:
            return layer
    return None


def _described(layer: Any, masked: bool) -> str:
    """Class and options that are not its defaults, and whether a layer before it masks."""
    config, defaults = layer.get_config(), inspect.signature(type(layer).__init__).parameters
    chosen = {
        key: value
        for key, value in config.items()
        if key in defaults
        and key not in ("name", "dtype", "trainable")
        and not isinstance(value, dict)
        and value not in ("linear", "channels_last")
        and not key.endswith(("_initializer", "_regularizer", "_constraint"))
        and defaults[key].default not in (value, list(value) if isinstance(value, tuple) else value)
    }
    text = "".join(f", {key}={value!r}" for key, value in chosen.items())
    if masked:
        text += ", behind a mask"
    return f"{type(layer).__name__}{text}"
