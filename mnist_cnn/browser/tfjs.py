"""A Keras model as TensorFlow.js files, and what TensorFlow.js answers from them.

The converter of tensorflowjs copies Keras 3's topology as it is, which TensorFlow.js 4.22 then
refuses; so the topology is rewritten (keras2_topology), and only the writers of weights and of
graphs are the converter's own.
"""

from __future__ import annotations

import errno
import gzip
import importlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from mnist_cnn.browser import node, output_folder
from mnist_cnn.browser.keras2_topology import topology
from mnist_cnn.browser.lowering import leaves
from mnist_cnn.learning.backend import keras, suppress_stderr, tf
from mnist_cnn.parameters import UserError

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
    """Write model.json and its shards, named by their digests, to `folder`.

    Raises UserError for what cannot be written in TensorFlow.js, OSError for a full disk.
    """
    to_files = _write_graph if options.output_format == "tfjs_graph_model" else _write_layers
    try:
        content = to_files(model, folder, options)
    except tf.errors.ResourceExhaustedError as error:  # the writer's own file layer
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    for group in content["weightsManifest"]:
        group["paths"] = [_with_digest(folder / name) for name in group["paths"]]
    if options.metadata:
        content["userDefinedMetadata"] = {"metadata": options.metadata}
    (folder / "model.json").write_text(json.dumps(content))


def _with_digest(shard: Path) -> str:
    """New name of a shard: what a reader of an older model.json asks for is never another's."""
    name = f"{shard.stem}-{output_folder.digest(shard.read_bytes())}{shard.suffix}"
    shard.rename(shard.with_name(name))
    return name


def _quantization(options: Written) -> dict[str, str]:
    return {} if options.quantize == "none" else {options.quantize: "*"}


def _write_layers(model: keras.Model, folder: Path, options: Written) -> dict:
    write_weights = _tensorflowjs("tensorflowjs.write_weights")
    config = topology(model)
    groups = [
        [
            {"name": name, "data": np.asarray(value)}
            for name, value in _weights(layer, (layer.name,))
        ]
        for layer in model.layers
    ]
    if not options.split_weights_by_layer:
        groups = [[weight for group in groups for weight in group]]
    manifest = write_weights.write_weights(
        [group for group in groups if group] or [[]],
        str(folder),
        write_manifest=False,
        shard_size_bytes=options.weight_shard_size_bytes,
        quantization_dtype_map=_quantization(options),
    )
    return {
        "format": "layers-model",
        "generatedBy": f"keras v{keras.__version__}",
        "convertedBy": "mnist_cnn",
        "modelTopology": {
            "keras_version": keras.__version__,
            "backend": "tensorflow",
            "model_config": config,
        },
        "weightsManifest": manifest,
    }


def _weights(layer: keras.Layer, scope: tuple[str, ...]) -> Iterator[tuple[str, keras.Variable]]:
    """The weights of a layer, or of the layers in it, under the names TensorFlow.js gives them."""
    kind = type(layer).__name__
    cells = getattr(getattr(layer, "cell", None), "cells", ())
    if isinstance(getattr(layer, "layers", None), list):  # a nested model
        for inner in layer.layers:
            yield from _weights(inner, (inner.name,))
    elif kind == "Bidirectional":
        for inner in (layer.forward_layer, layer.backward_layer):
            yield from _weights(inner, (*scope, inner.name))
    elif kind == "TimeDistributed":
        yield from _weights(layer.layer, scope)
    elif cells:
        for index, cell in enumerate(cells):
            yield from _weights(cell, (*scope, f"RNNCell_{index}"))
    else:
        for weight in layer.weights:
            name = weight.name.rsplit("/", 1)[-1].split(":")[0]
            if (kind, name) == ("DepthwiseConv2D", "kernel"):
                name = "depthwise_kernel"  # as in Keras 2
            yield "/".join([*scope, name]), weight


def packed(model: keras.Model, inputs: Sequence) -> Any:
    """A flat list of inputs in the structure in which the model takes them."""
    structure = getattr(model, "_inputs_struct", getattr(model, "_nested_inputs", None))
    return inputs[0] if structure is None else tf.nest.pack_sequence_as(structure, list(inputs))


def _write_graph(model: keras.Model, folder: Path, options: Written) -> dict:
    converter = _tensorflowjs("tensorflowjs.converters.tf_saved_model_conversion_v2")
    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, f"input_{index}")
        for index, tensor in enumerate(model.inputs)
    ]

    @tf.function(input_signature=specs, autograph=False)
    def serve(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = tf.nest.flatten(model(packed(model, inputs), training=False))
        return {f"output_{index:04}": output for index, output in enumerate(outputs)}

    _unroll(model)
    module = tf.Module()
    module.serve = serve
    module.held = [v if isinstance(v, tf.Variable) else v.value for v in model.variables]
    with tempfile.TemporaryDirectory() as saved:
        tf.saved_model.save(module, saved, signatures=serve)
        try:
            converter.convert_tf_saved_model(
                saved,
                str(folder),
                quantization_dtype_map=_quantization(options),
                weight_shard_size_bytes=options.weight_shard_size_bytes,
                control_flow_v2=True,
            )
        except ValueError as error:
            raise _unsupported(model, serve, error) from None
    content = json.loads((folder / "model.json").read_text())
    signature = content["signature"]
    for end, names in (("inputs", _names(model.inputs)), ("outputs", _names(model.outputs))):
        # The converter writes them in any order and, of equal shape, under any name.
        nodes = sorted(signature[end].values(), key=lambda node: _position(node["name"]))
        signature[end] = dict(zip(names, nodes, strict=True))
    return content


def _unroll(model: keras.Model) -> None:
    """TensorFlow.js frees what a loop collects before it is read: no loop where that is needed."""
    for layer in leaves(model):
        parts = [getattr(layer, name, layer) for name in ("forward_layer", "backward_layer")]
        if getattr(parts[0], "return_sequences", False) and None not in layer.input.shape[1:]:
            for part in parts:
                part.unroll = True


def _unsupported(model: keras.Model, function: Any, error: ValueError) -> Exception:
    """The layer that needs an operation which TensorFlow.js has not; or the error as it is."""
    reason, _, kinds = str(error).partition("\n")
    if not reason.startswith("Unsupported Ops"):
        return error
    operations = function.get_concrete_function().graph.get_operations()
    scopes = [one.name.split("/") for one in operations if one.type in kinds.split(", ")]
    parts = [re.sub(r"_\d+$", "", part) for part in (scopes or [[]])[0]]
    found = [x.name for x in leaves(model) if re.sub(r"_\d+$", "", x.name) in parts]
    layer = f"layer {found[0]!r}" if found else "the model"
    return UserError(f"{layer} needs {kinds.strip()}, which TensorFlow.js does not have.")


def _names(tensors: Sequence) -> list[str]:
    """Of each input or output the layer it comes from, numbered where one has several."""
    names = [tensor._keras_history[0].name for tensor in tensors]
    return [f"{n}_{i}" if names.count(n) > 1 else n for i, n in enumerate(names)]


def _position(node: str) -> int:
    """Of the nodes input_0:0, input_1:0, ... and of Identity:0, Identity_1:0, ..."""
    return int((re.findall(r"_(\d+):0$", node) or ["0"])[0])


def _tensorflowjs(name: str) -> ModuleType:
    """A module of the converter, without the advertisements of what it imports."""
    with warnings.catch_warnings(), suppress_stderr():
        warnings.simplefilter("ignore")
        # Decision forests print an advertisement, or import IPython, unless it is switched off.
        os.environ.setdefault("TFDF_DISABLE_WELCOME_MESSAGE", "1")
        return importlib.import_module(name)


@dataclass(frozen=True)
class Job:
    """Files to load and float32 or integer inputs (n, ...); `layers`: whose outputs to answer."""

    folder: Path
    inputs: list[np.ndarray]
    batch: int = 250
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answers:
    """What TensorFlow.js answered: float32 (n, ...) per output, and warm seconds per example.

    `error`: what it said instead, and `layers`, the names of those it was in, the innermost first.
    """

    outputs: list[np.ndarray]
    seconds_per_example: float = 0.0
    error: str = ""
    layers: Sequence[str] = ()


def answers(jobs: Sequence[Job]) -> list[Answers]:
    """Load the files of each job in real TensorFlow.js, all in one process of Node, and answer."""
    with tempfile.TemporaryDirectory() as scratch:
        told = []
        for number, job in enumerate(jobs):
            inputs = []
            for index, array in enumerate(job.inputs):
                kind = "int32" if array.dtype.kind in "iub" else "float32"
                file = f"{scratch}/{number}-in{index}"
                array.astype(f"<{kind[0]}4").tofile(file)
                inputs.append({"shape": array.shape[1:], "dtype": kind, "file": file})
            told.append(
                {
                    "folder": str(job.folder),
                    "inputs": inputs,
                    "count": len(job.inputs[0]),
                    "batch": job.batch,
                    "output": f"{scratch}/{number}-out",
                    "layers": job.layers or None,
                }
            )
        Path(scratch, "jobs.json").write_text(
            json.dumps({"modules": str(node.modules()), "jobs": told})
        )
        found = json.loads(node.run("answer.mjs", f"{scratch}/jobs.json"))
        return [
            _read(job, f"{scratch}/{number}-out", answer)
            for number, (job, answer) in enumerate(zip(jobs, found, strict=True))
        ]


def _read(job: Job, prefix: str, answer: dict) -> Answers:
    if "error" in answer:
        return Answers([], error=answer["error"], layers=answer["layers"])
    outputs = [
        np.fromfile(f"{prefix}{index}.f32", "<f4").reshape(len(job.inputs[0]), *output["shape"])
        for index, output in enumerate(answer["outputs"])
    ]
    return Answers(outputs, answer["seconds_per_example"])


def sizes(folder: Path) -> tuple[int, int]:
    """Bytes of the TensorFlow.js files, plain and as gzip would send them."""
    contents = [path.read_bytes() for path in folder.iterdir() if path.is_file()]
    return sum(map(len, contents)), sum(len(gzip.compress(content)) for content in contents)
