"""Other people's digit models: what goes into them, and what comes out, as ours have it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mnist_cnn.learning.backend import library, tf
from mnist_cnn.learning.data import Split

SHAPES = ((28, 28, 1), (28, 28), (784,))
# What a pixel of 0 and of 255 may become: published recipes use these, standardised the last.
RANGES = ((0, 1), (0, 255), (-1, 1), (-0.5, 0.5), (1, 0), (-0.4242, 2.8215))
CLEARLY = 0.5  # with less accuracy than this a model is taken for one of another task
LOOKED_AT = 500  # validation images that decide


@dataclass(frozen=True)
class Adapter:
    """From images uint8 (n, 28, 28, 1) to a model's inputs, from its outputs to probabilities."""

    shape: tuple[int, ...] = SHAPES[0]
    low: float = 0
    high: float = 1
    output: str = "probabilities"  # or logits, or sigmoids
    accuracy: float = 1.0  # on the validation images that decided

    def inputs(self, images: np.ndarray) -> np.ndarray:
        """Images as the model takes them: float32 (n, *shape), a pixel of 0 at `low`."""
        scaled = images.astype(np.float32) / 255 * (self.high - self.low) + self.low
        return scaled.reshape(-1, *self.shape)

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs (n, 10) as probabilities, float32 (n, 10) that sum to 1."""
        if self.output == "probabilities":
            return outputs
        if self.output == "logits":
            outputs = np.exp(outputs - outputs.max(1, keepdims=True))
        return (outputs / np.maximum(outputs.sum(1, keepdims=True), 1e-12)).astype(np.float32)

    def as_ours(self, network: Any) -> Any:
        """`network` as a model of images (n, 28, 28, 1) in [0, 1] to probabilities (n, 10)."""
        keras = library(network)
        layers = keras.layers
        before = [layers.Rescaling(self.high - self.low, self.low), layers.Reshape(self.shape)]
        shares = layers.Lambda(lambda x: x / tf.reduce_sum(x, axis=1, keepdims=True))
        after = {"logits": [layers.Softmax()], "sigmoids": [shares]}.get(self.output, [])
        return keras.Sequential([keras.Input((28, 28, 1)), *before, network, *after])


def fits(network: Any) -> bool:
    """Whether a model is from one image of 28 x 28 to ten numbers."""
    ends = [[tuple(t.shape[1:]) for t in end or ()] for end in (network.inputs, network.outputs)]
    return ends in [[[shape], [(10,)]] for shape in SHAPES]


def fitted(network: Any, validation: Split) -> Adapter:
    """The adapter that reads some validation images best; from 0 to 1 unless clearly worse."""
    shape = tuple(network.inputs[0].shape[1:])
    tried = []
    for low, high in RANGES:
        images = Adapter(shape, low, high).inputs(validation.x[:LOOKED_AT])
        outputs = network.predict(images, batch_size=LOOKED_AT, verbose=0)
        kind = "probabilities" if np.allclose(outputs.sum(1), 1, atol=1e-3) else "sigmoids"
        kind = "logits" if outputs.min() < 0 or outputs.max() > 1 + 1e-4 else kind
        accuracy = float((outputs.argmax(1) == validation.y[:LOOKED_AT]).mean())
        tried.append(Adapter(shape, low, high, kind, accuracy))
    best = max(tried, key=lambda adapter: adapter.accuracy)
    return best if best.accuracy > tried[0].accuracy + 0.02 else tried[0]
