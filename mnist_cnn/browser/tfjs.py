"""A Keras 3 model as TensorFlow.js files, and what TensorFlow.js answers from them.

TensorFlow.js 4.22 reads the topology as Keras 2 wrote it. The converter of tensorflowjs copies
Keras 3's topology as it is, which TensorFlow.js then refuses; so the topology is rewritten here,
and only the weight writer is the converter's own.
"""

from __future__ import annotations

import errno
import gzip
import importlib
import json
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mnist_cnn.browser import node, output_folder
from mnist_cnn.learning.backend import keras, suppress_stderr, tf
from mnist_cnn.parameters import UserError

# Layers of TensorFlow.js 4.22 that mean the same in Keras 3.
LAYERS = frozenset(
    """InputLayer Dense Flatten Reshape Permute RepeatVector Dropout SpatialDropout1D Activation
    ReLU LeakyReLU PReLU ELU Softmax Conv1D Conv2D Conv2DTranspose Conv3D DepthwiseConv2D
    SeparableConv2D Cropping2D UpSampling2D ZeroPadding2D AveragePooling1D AveragePooling2D
    AveragePooling3D MaxPooling1D MaxPooling2D GlobalAveragePooling1D
    GlobalAveragePooling2D GlobalMaxPooling1D GlobalMaxPooling2D Add Average Concatenate Maximum
    Minimum Multiply Dot BatchNormalization LayerNormalization Embedding Rescaling GaussianNoise
    GaussianDropout Normalization Sequential Functional""".split()
)
ACTIVATIONS = {"silu": "swish"} | {
    name: name
    for name in """elu gelu linear mish relu relu6 selu sigmoid softmax softplus
    softsign swish tanh""".split()
}
# Options of Keras 3 that TensorFlow.js would silently ignore, with the value that changes nothing.
NEUTRAL = {
    "ReLU": {"negative_slope": 0.0, "threshold": 0.0},
    "GlobalAveragePooling1D": {"keepdims": False},
    "GlobalAveragePooling2D": {"keepdims": False},
    "GlobalMaxPooling1D": {"keepdims": False},
    "GlobalMaxPooling2D": {"keepdims": False},
    "LayerNormalization": {"rms_scaling": False},
}
QUANTIZE = ("none", "float16", "uint16", "uint8")


@dataclass(frozen=True)
class Written:
    """How the files are written: the options of the converter."""

    output_format: str = "tfjs_layers_model"
    quantize: str = "none"
    weight_shard_size_bytes: int = 4 * 2**20
    split_weights_by_layer: bool = False
    metadata: str = ""


def write(model: keras.Model, folder: Path, options: Written) -> None:
    """Write model.json and its shards to `folder`.

    Raises UserError for what cannot be written in TensorFlow.js, OSError for a full disk.
    """
    quantization = {} if options.quantize == "none" else {options.quantize: "*"}
    to_files = _write_graph if options.output_format == "tfjs_graph_model" else _write_layers
    try:
        to_files(model, folder, options, quantization)
    except tf.errors.ResourceExhaustedError as error:  # the writer's own file layer
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    path = folder / "model.json"
    content = json.loads(path.read_text())
    for group in content["weightsManifest"]:
        group["paths"] = [_with_digest(folder / name) for name in group["paths"]]
    if options.metadata:
        content["userDefinedMetadata"] = {"metadata": options.metadata}
    path.write_text(json.dumps(content))


def _with_digest(shard: Path) -> str:
    """New name of a shard: what a reader of an older model.json asks for is never another's."""
    name = f"{shard.stem}-{output_folder.digest(shard.read_bytes())}{shard.suffix}"
    shard.rename(shard.with_name(name))
    return name


def _write_layers(
    model: keras.Model, folder: Path, options: Written, quantization: dict[str, str]
) -> None:
    write_weights = _tensorflowjs("tensorflowjs.write_weights")
    topology = _layer(json.loads(model.to_json()))
    groups = [
        [
            {"name": _weight_name(layer, weight), "data": np.asarray(weight.numpy())}
            for weight in layer.weights
            if not (type(layer).__name__ == "Normalization" and weight.name == "count")
        ]
        for layer in _leaves(model)
        if layer.weights
    ]
    names = [weight["name"] for group in groups for weight in group]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(
            f"layer {min(twice).rsplit('/', 1)[0]!r} occurs twice (in nested models); "
            "TensorFlow.js needs a name of its own for every layer: rename one."
        )
    if not options.split_weights_by_layer:
        groups = [[weight for group in groups for weight in group]]
    manifest = write_weights.write_weights(
        groups,
        str(folder),
        write_manifest=False,
        shard_size_bytes=options.weight_shard_size_bytes,
        quantization_dtype_map=quantization,
    )
    content = {
        "format": "layers-model",
        "generatedBy": f"keras v{keras.__version__}",
        "convertedBy": "mnist_cnn",
        "modelTopology": {
            "keras_version": keras.__version__,
            "backend": "tensorflow",
            "model_config": topology,
        },
        "weightsManifest": manifest,
    }
    (folder / "model.json").write_text(json.dumps(content))


def _write_graph(
    model: keras.Model, folder: Path, options: Written, quantization: dict[str, str]
) -> None:
    converter = _tensorflowjs("tensorflowjs.converters.tf_saved_model_conversion_v2")
    with tempfile.TemporaryDirectory() as saved:
        model.export(saved, verbose=False)
        converter.convert_tf_saved_model(
            saved,
            str(folder),
            quantization_dtype_map=quantization,
            weight_shard_size_bytes=options.weight_shard_size_bytes,
        )


def _tensorflowjs(name: str) -> ModuleType:
    """A module of the converter, without the advertisements of what it imports."""
    with warnings.catch_warnings(), suppress_stderr():
        warnings.simplefilter("ignore")
        # Decision forests print an advertisement, or import IPython, unless it is switched off.
        os.environ.setdefault("TFDF_DISABLE_WELCOME_MESSAGE", "1")
        return importlib.import_module(name)


def _weight_name(layer: keras.Layer, weight: keras.Variable) -> str:
    # Keras 3 calls it kernel, as in every convolution; Keras 2 did not.
    renamed = {
        ("DepthwiseConv2D", "kernel"): "depthwise_kernel",
        ("Normalization", "mean"): "moving_mean",
        ("Normalization", "variance"): "moving_variance",
    }
    return f"{layer.name}/{renamed.get((type(layer).__name__, weight.name), weight.name)}"


def _leaves(model: keras.Model) -> list[keras.Layer]:
    """Layers with weights of their own: nested models opened, a shared layer once."""
    found: dict[int, keras.Layer] = {}
    for layer in model.layers:
        inner = _leaves(layer) if isinstance(layer, keras.Model) else [layer]
        found |= {id(leaf): leaf for leaf in inner}
    return list(found.values())


def _is_model(layer: dict[str, Any]) -> bool:
    return layer["class_name"] in ("Sequential", "Functional")


def _tensor(history: list, models: set[str]) -> list:
    """[layer, node, tensor] as TensorFlow.js counts: a nested model's own graph is its node 0."""
    name, call, index = history
    return [name, call + (name in models), index]


def _layer(layer: dict[str, Any], siblings: set[str] = frozenset()) -> dict[str, Any]:
    """One layer or model of Keras 3's JSON as Keras 2 wrote it. Raises UserError by name.

    `siblings`: the names of the models among the layers beside it.
    """
    kind, config = layer["class_name"], dict(layer["config"])
    name = config.get("name", "?")
    if kind not in LAYERS:
        raise UserError(
            f"layer {name!r} is a {kind}, which TensorFlow.js does not have; leave it out or "
            "put layers of the same effect in its place, or try output_format=tfjs_graph_model."
        )
    for option, neutral in NEUTRAL.get(kind, {}).items():
        if config.get(option, neutral) not in (neutral, None):
            raise UserError(
                f"layer {name!r} ({kind}) has {option}={config[option]!r}, which TensorFlow.js "
                f"would ignore; only {neutral!r} can be converted to tfjs_layers_model."
            )

    if kind == "Normalization":
        kind, config = "BatchNormalization", _as_batch_normalization(name, config)
    if "layers" in config:
        models = {inner["config"]["name"] for inner in config["layers"] if _is_model(inner)}
        config["layers"] = [_layer(inner, models) for inner in config["layers"]]
        for end in ("input_layers", "output_layers"):
            if end in config:
                config[end] = [_tensor(tensor, models) for tensor in _ends(config[end])]
    config.pop("build_input_shape", None)
    for key, value in list(config.items()):
        config[key] = _value(name, key, value)
    if "batch_shape" in config:
        config["batch_input_shape"] = config.pop("batch_shape")
    if kind == "LeakyReLU":
        config["alpha"] = config.pop("negative_slope")

    rewritten = {"class_name": "Model" if kind == "Functional" else kind, "config": config}
    if "inbound_nodes" in layer:
        rewritten["name"] = layer["name"]
        rewritten["inbound_nodes"] = [_inbound(call, siblings) for call in layer["inbound_nodes"]]
    return rewritten


def _as_batch_normalization(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """What an adapted Normalization of the last axis does, as the layer TensorFlow.js has."""
    if config["axis"] not in (-1, [-1], (-1,)) or config["mean"] is not None or config["invert"]:
        raise UserError(
            f"layer {name!r} (Normalization) can be converted only as adapt() leaves it, with "
            "axis=-1 and without mean, variance or invert."
        )
    fixed = {"axis": -1, "momentum": 0.99, "center": False, "scale": False}
    # Keras bounds the standard deviation from below by 1e-7, its square here.
    return {"name": name, "dtype": config["dtype"], "epsilon": 1e-14, **fixed}


def _value(layer: str, key: str, value: Any) -> Any:
    if key == "dtype" and isinstance(value, dict):
        return value["config"]["name"]
    if key.endswith("_initializer"):
        return {"class_name": "Zeros", "config": {}}  # the weights follow
    if key.endswith(("_regularizer", "_constraint")):
        return None  # of training only
    if key == "activation":
        if isinstance(value, dict) or value not in ACTIVATIONS:
            raise UserError(
                f"layer {layer!r} has activation {value!r}, which TensorFlow.js does not have; "
                f"allowed: {', '.join(sorted(ACTIVATIONS))}."
            )
        return ACTIVATIONS[value]
    return value


def _ends(ends: list) -> list:
    """Inputs or outputs of a functional model; Keras 3 leaves the outer list of a single one."""
    return [ends] if ends and isinstance(ends[0], str) else ends


def _inbound(call: dict[str, Any], models: set[str]) -> list:
    """One call of a layer: the tensors that went in, as [layer, node, tensor, {}] each."""
    found = []

    def visit(value: Any) -> None:
        if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            found.append([*_tensor(value["config"]["keras_history"], models), {}])
        elif isinstance(value, list):
            for item in value:
                visit(item)

    visit(call["args"])
    return found


@dataclass(frozen=True)
class Answers:
    """What TensorFlow.js answered: float32 (n, ...) per output, and warm seconds per example."""

    outputs: list[np.ndarray]
    seconds_per_image: float


def answers(folder: Path, output_format: str, inputs: list[np.ndarray]) -> Answers:
    """Load `folder` in real TensorFlow.js under Node and answer float32 `inputs`, (n, ...) each."""
    count = len(inputs[0])
    with tempfile.TemporaryDirectory() as scratch:
        job = {
            "modules": str(node.modules()),
            "folder": str(folder),
            "format": output_format,
            "count": count,
            "batch": 250,
            "output": f"{scratch}/out",
            "inputs": [
                {"shape": array.shape[1:], "file": f"{scratch}/in{i}.f32"}
                for i, array in enumerate(inputs)
            ],
        }
        for i, array in enumerate(inputs):
            array.astype("<f4").tofile(f"{scratch}/in{i}.f32")
        path = Path(scratch) / "job.json"
        path.write_text(json.dumps(job))
        told = json.loads(node.run("answer.mjs", str(path)).splitlines()[-1])
        outputs = [
            np.fromfile(f"{scratch}/out{i}.f32", "<f4").reshape(count, *shape)
            for i, shape in enumerate(told["shapes"])
        ]
    return Answers(outputs, told["seconds_per_image"])


def sizes(folder: Path) -> tuple[int, int]:
    """Bytes of the TensorFlow.js files, plain and as gzip would send them."""
    contents = [path.read_bytes() for path in folder.iterdir() if path.is_file()]
    return sum(map(len, contents)), sum(len(gzip.compress(content)) for content in contents)
