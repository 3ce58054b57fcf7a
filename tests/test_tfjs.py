"""Real TensorFlow.js answers as Keras does, or convert refuses by name; see tests/layers.py."""

import json

import numpy as np
import pytest

from mnist_cnn.browser import proof, tfjs
from mnist_cnn.learning.backend import legacy_keras
from mnist_cnn.parameters import UserError
from tests import layers
from tests.layers import FORMATS, GRAPH, TABLE, L, keras, stack

# What only a graph can do, loops, random layers and several outputs; the rest is slow.
AS_GRAPH = [
    *("Conv2DTranspose, output_padding", "Conv3DTranspose", "Conv2D in groups", "Subtract"),
    *("GRU, LSTM, open lengths", "TimeDistributed, open length", "one output twice"),
    "nested, refused",
    *("GRU", "LSTM, return_sequences", "Embedding, integers, LSTM behind a mask", "RandomFlip"),
    *("outputs by name", "GroupNormalization", "MultiHeadAttention", "Resizing", "Dense, tanh"),
    *("gelu, hard_silu", "Dense, softsign", "LSTM, stateful", "large weights"),
]


@pytest.fixture(scope="module")
def said():
    """What convert says to the rows of the table, as layers; all in one process of Node."""
    return layers.converted(TABLE, FORMATS[0])


@pytest.fixture(scope="module")
def said_as_graph():
    return layers.converted(dict.fromkeys(AS_GRAPH), FORMATS[1])


def check(said, refusal):
    assert bool(said) == bool(refusal), said
    assert refusal in said
    assert len(said) < 600


@pytest.mark.parametrize("name", TABLE)
def test_layer_is_proven_or_refused_by_name(said, name):
    check(said[name], TABLE[name][1])
    if said[name]:
        assert "layer '" in said[name]


@pytest.mark.parametrize("name", dict.fromkeys(AS_GRAPH))
def test_graph_is_proven_or_refused_by_name(said_as_graph, name):
    check(said_as_graph[name], TABLE[name][2])


@pytest.mark.slow
def test_all_rows_as_graphs():
    said = layers.converted(TABLE, FORMATS[1])
    for name, row in TABLE.items():
        check(said[name], row[2])


@pytest.mark.parametrize("form", FORMATS)
def test_layers_of_keras_2_that_are_its_own(form):
    old = legacy_keras()
    own = [old.layers.Resizing(5, 6), old.layers.LayerNormalization(), old.layers.RandomWidth(0.1)]
    nested = old.Sequential([old.Input((8, 8, 3)), *own])  # as Teachable Machine nests
    model = old.Sequential([old.Input((8, 8, 3)), nested, old.layers.Dense(2, "tanh")])
    assert layers.converted(["it"], form, {"it": [lambda: model]})["it"] == ""


def test_a_large_weight_is_a_constant_in_a_file_of_a_graph(tmp_path):
    model = stack(L.Dense(300), L.Dense(2), shape=(300,))
    tfjs.write(model, tmp_path, output_format=GRAPH)
    content = json.loads((tmp_path / "model.json").read_text())
    nodes = {node["name"]: node["op"] for node in content["modelTopology"]["node"]}
    assert nodes["weight_0"] == "Const"
    assert "weight_1" not in nodes
    assert list(content["signature"]["inputs"]) == [model.inputs[0]._keras_history[0].name]
    assert model.layers[0].kernel in model.weights, "the layer has its variable again"


def test_options_of_the_writer(tmp_path):
    options = {"weight_shard_size_bytes": 1024, "split_weights_by_layer": True, "metadata": "me"}
    model = stack(L.Conv2D(32, 3), L.Conv2D(8, 3))
    tfjs.write(model, tmp_path, **options)
    samples = proof.drawn(model)
    (found,) = tfjs.answers([(tmp_path, samples.inputs)])
    proof.compare(samples.expected, found["outputs"])
    assert len(list(tmp_path.glob("group2-*.bin"))) > 1
    assert '"userDefinedMetadata"' in (tmp_path / "model.json").read_text()


def test_a_graph_names_its_inputs_and_outputs(tmp_path):
    a, b = L.Input((5,), name="a"), L.Input((5,), name="b")
    both = L.Concatenate()([L.Dense(4)(a), L.Dense(3)(b)])
    model = keras.Model([b, a], {"z": L.Dense(2, name="z")(both), "y": L.Dense(2, name="y")(both)})
    tfjs.write(model, tmp_path, output_format=GRAPH)
    signature = json.loads((tmp_path / "model.json").read_text())["signature"]
    assert list(signature["inputs"]) == ["b", "a"]
    assert list(signature["outputs"]) == ["y", "z"]


def test_a_model_that_answers_nan_is_not_proven():
    model = stack(L.Dense(3), shape=(6,))
    for weight in (np.nan, 3e38):
        model.layers[0].kernel.assign(np.full((6, 3), weight))
        with pytest.raises(UserError, match="Keras answers with NaN or infinity"):
            proof.drawn(model)
    for other in (np.nan, np.inf):
        with pytest.raises(UserError, match="NaN or infinity"):
            proof.compare([np.zeros((4, 2))], [np.full((4, 2), other)])


def test_decisions_are_compared_and_ties_are_none():
    softmax = np.array([[0.6, 0.4], [0.50001, 0.49999], [0.1, 0.9]])
    other = np.array([[0.55, 0.45], [0.49999, 0.50001], [0.6, 0.4]])
    assert proof.compare([softmax], [other], exactly=False)[2].tolist() == [True, True, False]
    sigmoid = np.array([[0.6], [0.4], [0.01]])
    assert not proof.compare([sigmoid], [1 - sigmoid], exactly=False)[2].any()
    regression = np.array([[10.0], [-10.0], [3.0]])
    assert proof.compare([regression], [regression * 1.001], exactly=False)[2].all()
    assert not proof.compare([regression], [regression * 1.1], exactly=False)[2].all()
    assert proof.compare([softmax, sigmoid], [softmax, sigmoid])[2].all()
    with pytest.raises(UserError, match=r"by up to 0\.01, 0\.0012 standard deviations"):
        proof.compare([softmax, regression], [softmax, regression * 1.001])


def test_inputs_fit_the_model():
    tokens = stack(L.Embedding(9, 4, mask_zero=True), L.LSTM(3), shape=(6,), dtype="int32")
    (values,) = proof.drawn(tokens).inputs
    assert set(values.ravel()) == set(range(9))
    assert len({row.tolist().index(0) for row in values if 0 in row}) > 1, "lengths vary"
    (pixels,) = proof.drawn(stack(L.Rescaling(1 / 255), L.Flatten())).inputs
    assert pixels.max() == 255
    (numbers,) = proof.drawn(stack(L.Flatten())).inputs
    assert numbers.min() < -1


@pytest.mark.parametrize(
    ("arrays", "fits"),
    [
        ({"a": np.ones((3, 5)), "b": np.ones((3, 7))}, True),
        ({"b": np.ones((3, 7)), "a": np.ones((3, 5))}, True),
        ({"x": np.ones((3, 5)), "y": np.ones((3, 7), np.uint8)}, True),
        ({"x": np.ones((3, 5))}, False),
        ({"a": np.ones((3, 5)), "b": np.ones((3, 8))}, False),
        ({"a": np.ones((3, 5)), "b": np.ones((2, 7))}, False),
        ({"a": np.ones((0, 5)), "b": np.ones((0, 7))}, False),
        ({"a": np.full((3, 5), np.nan), "b": np.ones((3, 7))}, False),
        ({"a": np.array([[None] * 5]), "b": np.ones((1, 7))}, False),
    ],
)
def test_own_samples(tmp_path, arrays, fits):
    a, b = L.Input((5,), name="a"), L.Input((7,), name="b")
    model = keras.Model([a, b], L.Concatenate()([a, b]))
    np.savez(tmp_path / "samples.npz", **arrays)
    if fits:
        samples = proof.given(model, str(tmp_path / "samples.npz"))
        assert [array.shape[1] for array in samples.inputs] == [5, 7]
        assert samples.expected[0].shape == (3, 12)
    else:
        with pytest.raises(UserError, match=r"inputs=.*samples.npz does not fit"):
            proof.given(model, str(tmp_path / "samples.npz"))
