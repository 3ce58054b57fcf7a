"""A Keras model as TensorFlow.js files, and what TensorFlow.js answers from them.

Of tensorflowjs only the writers are used: TensorFlow.js 4.22 refuses what it makes of Keras 3.
"""

import json
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnist_cnn.browser import node
from mnist_cnn.browser.keras2 import every, first_input, is_model, lowered, topology
from mnist_cnn.browser.output_folder import digest
from mnist_cnn.learning.backend import keras, tf
from mnist_cnn.parameters import UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # tensorflow_hub imports pkg_resources
    from tensorflowjs.converters.keras_h5_conversion import write_artifacts
    from tensorflowjs.converters.tf_saved_model_conversion_v2 import convert_tf_saved_model

QUANTIZE = ("none", "float16", "uint16", "uint8")


def write(
    model: keras.Model,
    folder: Path,
    quantize: str = "none",
    *,
    output_format: str = "tfjs_layers_model",
    weight_shard_size_bytes: int = 4 * 2**20,
    split_weights_by_layer: bool = False,
    metadata: str = "",
) -> None:
    """Write model.json and its shards, named by their digests, to `folder`.

    Raises UserError for what cannot be written in TensorFlow.js.
    """
    folder.mkdir(exist_ok=True)
    widths = {} if quantize == "none" else {quantize: "*"}
    how = {"quantization_dtype_map": widths, "weight_shard_size_bytes": weight_shard_size_bytes}
    if output_format == "tfjs_graph_model":
        content = _write_graph(model, folder, how)
    else:
        parts = [[layer] for layer in model.layers] if split_weights_by_layer else [model.layers]
        named = [dict(pair for one in part for pair in _weights(one, one.name)) for part in parts]
        groups = [[{"name": k, "data": np.asarray(v)} for k, v in w.items()] for w in named if w]
        config = {"keras_version": keras.__version__, "backend": "tensorflow"}
        config["model_config"] = topology(model)
        write_artifacts(config, groups or [[]], str(folder), **how)
        content = model_json(folder) | {"convertedBy": "mnist_cnn"}
    for group in content["weightsManifest"]:
        for place, name in enumerate(group["paths"]):
            # What a reader of an older model.json asks for is never another's.
            shard = folder / name
            group["paths"][place] = name = f"{shard.stem}-{digest(shard.read_bytes())}.bin"
            shard.rename(folder / name)
    if metadata:
        content["userDefinedMetadata"] = {"metadata": metadata}
    (folder / "model.json").write_text(json.dumps(content))


def model_json(folder: Path) -> dict[str, Any]:
    """The content of model.json."""
    return json.loads((folder / "model.json").read_bytes())


def _weights(layer: Any, scope: str) -> Iterator[tuple[str, Any]]:
    """The weights of a layer, or of the layers in it, under the names TensorFlow.js gives them."""
    layer = lowered(layer.layer if type(layer).__name__ == "TimeDistributed" else layer)
    cells = getattr(getattr(layer, "cell", None), "cells", ())
    inner = [(one, f"{scope}/RNNCell_{index}") for index, one in enumerate(cells)]
    if is_model(layer):
        inner = [(one, one.name) for one in layer.layers]
    elif type(layer).__name__ == "Bidirectional":
        inner = [(x, f"{scope}/{x.name}") for x in (layer.forward_layer, layer.backward_layer)]
    for part in inner:
        yield from _weights(*part)
    for weight in () if inner else layer.weights:
        name = weight.name.rsplit("/", 1)[-1].split(":")[0]
        if (type(layer).__name__, name) == ("DepthwiseConv2D", "kernel"):
            name = "depthwise_kernel"  # as in Keras 2
        yield f"{scope}/{name}", weight


def packed(model: keras.Model, inputs: Sequence) -> Any:
    """A flat list of inputs in the structure in which the model takes them."""
    structure = getattr(model, "_inputs_struct", getattr(model, "_nested_inputs", None))
    return inputs[0] if structure is None else tf.nest.pack_sequence_as(structure, list(inputs))


def _write_graph(model: keras.Model, folder: Path, how: dict[str, Any]) -> dict[str, Any]:
    specs = [tf.TensorSpec(t.shape, t.dtype, f"input_{i}") for i, t in enumerate(model.inputs)]

    @tf.function(input_signature=specs, autograph=False)
    def serve(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = tf.nest.flatten(model(packed(model, inputs), training=False))
        return {f"output_{index:04}": output for index, output in enumerate(outputs)}

    # TensorFlow.js frees what a loop collects before it is read: no loop where that is needed.
    for layer in every(model):
        for part in {getattr(layer, f"{way}_layer", layer) for way in ("forward", "backward")}:
            if getattr(part, "return_sequences", False):
                part.unroll = None not in first_input(layer).shape[1:]
    module = tf.Module()
    module.held = [v if isinstance(v, tf.Variable) else v.value for v in model.variables]
    with tempfile.TemporaryDirectory() as saved:
        tf.saved_model.save(module, saved, signatures=serve)
        try:
            convert_tf_saved_model(saved, str(folder), control_flow_v2=True, **how)
        except ValueError as error:
            raise _unsupported(model, serve, error) from None
    content = model_json(folder)
    for end, tensors in (("inputs", model.inputs), ("outputs", model.outputs)):
        # The converter writes them in any order and, of equal shape, under any name; their nodes
        # are input_0:0, input_1:0, ... and Identity:0, Identity_1:0, ...
        nodes = content["signature"][end].values()
        nodes = sorted(nodes, key=lambda one: int("0" + re.sub(r":.*|\D", "", one["name"])))
        names = [tensor._keras_history[0].name for tensor in tensors]
        names = [f"{n}_{i}" if names.count(n) > 1 else n for i, n in enumerate(names)]
        content["signature"][end] = dict(zip(names, nodes, strict=True))
    return content


def _unsupported(model: keras.Model, function: Any, error: ValueError) -> Exception:
    """The layer that needs an operation which TensorFlow.js has not; or the error as it is."""
    reason, _, kinds = str(error).partition("\n")
    if not reason.startswith("Unsupported Ops"):
        return error
    operations = function.get_concrete_function().graph.get_operations()
    found = [(one.name, one.type) for one in operations if one.type in kinds.split(", ")]
    name, kind = found[0] if found else ("", "")
    parts = [re.sub(r"_\d+$", "", part) for part in name.split("/")]
    layers = [repr(x.name) for x in every(model) if re.sub(r"_\d+$", "", x.name) in parts]
    needed = f"layer {layers[-1]} needs {kind}" if layers else f"the model needs {kinds.strip()}"
    return UserError(f"{needed}, which TensorFlow.js does not have.")


def answers(
    jobs: Sequence[tuple[Path, list[np.ndarray]]], layers: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Load the files of each folder in real TensorFlow.js, all in one process of Node, and answer.

    Each job has a folder and the inputs (n, ...). An answer is what the model or its `layers` put
    out, {outputs: float32 (n, ...) each, seconds_per_example (warm)}, or {error, layers}, the names
    of the layers that it was in, the innermost first.
    """
    with tempfile.TemporaryDirectory() as scratch:
        told: list[dict[str, Any]] = []
        for number, (folder, arrays) in enumerate(jobs):
            job = {"folder": str(folder), "files": f"{scratch}/{number}", "count": len(arrays[0])}
            told.append(job | {"shapes": [array.shape[1:] for array in arrays]})
            for index, array in enumerate(arrays):
                Path(f"{job['files']}-in{index}.f32").write_bytes(array.astype("<f4").tobytes())
        content = {"modules": str(node.modules()), "jobs": told, "layers": list(layers)}
        Path(scratch, "jobs.json").write_text(json.dumps(content))
        found = json.loads(node.run("answer.mjs", f"{scratch}/jobs.json"))
        for job, answer in zip(told, found, strict=True):
            answer["outputs"] = [
                np.fromfile(f"{job['files']}-out{index}.f32", "<f4").reshape(job["count"], *shape)
                for index, shape in enumerate(answer.get("shapes", ()))
            ]
        return found
