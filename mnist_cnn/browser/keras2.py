"""A Keras model as TensorFlow.js 4.22 reads it: float32, its names, the topology of Keras 2."""

import inspect
import json
import re
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from mnist_cnn.learning.backend import keras, library, tf
from mnist_cnn.parameters import UserError

REDUCED = re.compile(r'"(mixed_float16|mixed_bfloat16|float16|bfloat16|float64)"')
TRAINING = ("_initializer", "_regularizer", "_constraint")  # ends of keys that an answer needs not
RENAMED = {"batch_shape": "batch_input_shape", "LeakyReLU.negative_slope": "alpha"}  # in Keras 2
VALUES = {f"dtype {u}int{bits}": "int32" for u in ("", "u") for bits in (8, 16, 32, 64)}
VALUES |= dict.fromkeys(("activation silu", "recurrent_activation silu"), "swish")
L = keras.layers
IDENTITY = re.compile("Random(?!Crop)|SpatialDropout[23]D|Identity|ActivityReg")  # in inference


def ready(model: Any) -> tuple[Any, bool]:
    """A model, which changes, in float32, and whether it was not. UserError: no known input."""
    if not getattr(model, "inputs", None):
        raise UserError("the model has no known input: give it an Input, then save it again.")
    if type(model).__name__ == "Functional":  # with plain lists, in which no tensor is twice
        ids, linear = list(map(id, model.outputs)), library(model).layers.Activation
        ends = [linear("linear")(x) if id(x) in ids[:i] else x for i, x in enumerate(model.outputs)]
        model = library(model).Model(model.inputs, ends, name=model.name)
    names: set[str] = set()
    before = model.to_json()
    for layer in (model, *every(model)):
        name = re.sub(r"[^A-Za-z0-9_.\-/]", "_", layer.name)  # what TensorFlow allows
        name = re.sub(r"^(?![A-Za-z0-9.])", "layer", name)
        while name in names:
            name += "_"
        names.add(name)
        setattr(layer, "name" if isinstance(layer, keras.Layer) else "_name", name)
    text, reduced = REDUCED.subn('"float32"', model.to_json())
    if text != before:  # variables keep precision and name for life
        weights = model.get_weights()
        model = library(model).models.model_from_json(text)
        model.set_weights(weights)
    return model, bool(reduced)


def every(model: Any) -> Iterator[Any]:
    """The layers of a model, each nested model with its own after it."""
    for layer in model.layers:
        yield layer
        yield from every(layer) if hasattr(layer, "layers") else ()


def first_input(layer: Any) -> Any:
    """The first tensor that goes into the last call of a layer."""
    return tf.nest.flatten(layer._inbound_nodes[-1].input_tensors)[0]


def described(layer: Any) -> str:
    """A layer by its name, its class and its options that are not the usual ones."""
    config, defaults = layer.get_config(), inspect.signature(type(layer).__init__).parameters
    words = [type(layer).__name__]
    for key in sorted(defaults.keys() & config.keys() - {"name", "dtype", "trainable"}):
        value = getattr(config[key], "tolist", lambda key=key: config[key])()  # NumPy's in Keras 2
        plain = isinstance(value, bool | int | float | str | list | tuple)
        if plain and value not in ("linear", "channels_last", defaults[key].default):
            words.append(f"{key}={value!r}")
    if getattr(first_input(layer), "_keras_mask", None) is not None:
        words.append("behind a mask")
    return f"layer {layer.name!r} ({', '.join(words)})"


def lowered(layer: Any) -> Any:
    """A layer, or what equals one that TensorFlow.js does otherwise: a Sequential of Keras 3."""
    kind = type(layer).__name__
    found = LOWERED.get(kind, lambda layer: None)(layer)
    if not found and not IDENTITY.match(kind):
        return layer
    stack, weights = found or ([L.Activation("linear")], [])
    for number, part in enumerate(stack):
        part.name = f"{layer.name}_{number}"
    first = keras.Input(first_input(layer).shape[1:], dtype="float32")
    built = keras.Sequential([first, *stack], name=layer.name)
    built.set_weights(weights)
    return built


def _resizing(layer: Any) -> Any:
    """One matrix for the rows and one for the columns, found by what the layer does to images."""
    _, height, width, _ = first_input(layer).shape
    native = type(layer).__name__ == "UpSampling2D" and layer.interpolation == "nearest"
    native |= getattr(layer, "data_format", None) == "channels_first"
    if native or None in (height, width):
        return None
    lines = [np.eye(side, dtype=np.float32)[..., None, None] for side in (height, width)]
    rows = np.asarray(layer(np.repeat(lines[0], width, axis=2)))[:, :, 0, 0]
    columns = np.asarray(layer(np.repeat(lines[1].swapaxes(1, 2), height, axis=1)))[:, 0, :, 0]
    dense = [L.Dense(matrix.shape[1], use_bias=False) for matrix in (rows, columns)]
    turns = [L.Permute(order) for order in ((3, 2, 1), (1, 3, 2), (2, 3, 1))]
    return [turns[0], dense[0], turns[1], dense[1], turns[2]], [rows, columns]


def _category_encoding(layer: Any) -> Any:
    """An embedding that gives each index a one of its own, and how those of an example join."""
    count, (_, *rest) = layer.num_tokens, first_input(layer).shape
    if len(rest) != 1 or (layer.output_mode == "count" and rest[0] is None):
        return None
    joined = {
        "count": [L.GlobalAveragePooling1D(), L.Rescaling(rest[0] or 1)],
        "multi_hot": [L.GlobalMaxPooling1D()],
        "one_hot": [L.Reshape((count,))] if rest[0] == 1 else [],
    }[layer.output_mode]
    return [L.Embedding(count, count), *joined], [np.eye(count, dtype=np.float32)]


def _pooling(layer: Any) -> Any:
    pooled = getattr(L, type(layer).__name__)(data_format=layer.data_format)
    shape = tuple(layer.compute_output_shape(first_input(layer).shape))[1:]
    return ([pooled, L.Reshape(shape)], []) if layer.keepdims else None


# Each to layers and all their weights, or None.
LOWERED = dict.fromkeys(("Resizing", "CenterCrop", "UpSampling2D"), _resizing)
LOWERED |= dict.fromkeys(("GlobalAveragePooling2D", "GlobalMaxPooling2D"), _pooling)
LOWERED["CategoryEncoding"] = _category_encoding


def topology(model: Any) -> dict[str, Any]:
    """The `model_config` of a model, as model.json holds it."""
    pairs = [(layer, lowered(layer)) for layer in every(model)]
    # The own graph of a nested model is its call 0 in Keras 2; Keras 3 does not count it.
    shifted = {a.name for a, b in pairs if a is not b or isinstance(a, keras.Model)}
    counted = {a.name for a, _ in pairs if type(a).__name__ == "Functional"}  # if an output
    lower: dict[str, dict] = {}

    def rewritten(layer: dict[str, Any]) -> dict[str, Any]:
        """An object of the JSON, the objects in it being rewritten already."""
        layer.pop("mask", None)  # an argument that TensorFlow.js finds by itself
        if not isinstance(layer.get("config"), dict):
            return layer
        layer |= lower.get(layer["config"].get("name"), {})
        kind, config = layer["class_name"], layer["config"]
        for end in {"input_layers", "output_layers"} & config.keys():
            config[end] = list(_tensors(config[end], shifted - counted))
        ops = [x for x in config.get("layers", ()) if x["class_name"] in ("NotEqual", "Any")]
        for one in reversed(ops):
            if f"['{one['name']}', " not in str(config):  # it made a mask
                config["layers"].remove(one)
        if kind == "Bidirectional":  # TensorFlow.js puts the prefix on, and derives the other one
            inner = config["layer"]["config"]
            inner["name"] = inner["name"].removeprefix("forward_")
            config.pop("backward_layer", None)
        config = {
            RENAMED.get(k, RENAMED.get(f"{kind}.{k}", k)): VALUES.get(f"{k} {v}", v)
            for k, v in config.items()
            if not k.endswith(TRAINING) and not (k == "dtype" and isinstance(v, dict))
        }
        found = {"class_name": "Model" if kind == "Functional" else kind, "config": config}
        if "inbound_nodes" in layer:
            calls = [[[*t, {}] for t in _tensors(call, shifted)] for call in layer["inbound_nodes"]]
            found |= {"name": layer["name"], "inbound_nodes": calls}
        return found

    for name, text in [(a.name, b.to_json()) for a, b in pairs if a is not b]:
        lower[name] = json.loads(text, object_hook=rewritten)
    return json.loads(model.to_json(), object_hook=rewritten)


def _tensors(value: Any, shifted: Collection[str]) -> Iterator[list]:
    """The tensors [layer, call, index] in any structure, in the order in which Keras flattens."""
    value = [value[name] for name in sorted(value)] if isinstance(value, dict) else value
    if isinstance(value, list) and list(map(type, value[:2])) == [str, int]:
        yield [value[0], value[1] + (value[0] in shifted), value[2]]
    for item in value if isinstance(value, list) else ():
        yield from _tensors(item, shifted)
