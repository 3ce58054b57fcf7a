"""Other people's digit models: what goes into them, and what comes out, as ours have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mnist_cnn.learning.data import Split
from mnist_cnn.parameters import UserError

SHAPES = ((28, 28, 1), (28, 28), (784,))
# What a pixel of 0 and of 255 may become: published recipes use these, standardised the last.
RANGES = ((0, 1), (0, 255), (-1, 1), (-0.5, 0.5), (1, 0), (-0.4242, 2.8215))
CLEARLY = 0.5  # below this accuracy a model is no reader of these digits
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
        return scaled.astype(np.float32).reshape(-1, *self.shape)

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs (n, 10) as probabilities, float32 (n, 10) that sum to 1."""
        if self.output == "logits":
            outputs = np.exp(outputs - outputs.max(1, keepdims=True))
        if self.output == "probabilities":
            return outputs
        return (outputs / np.maximum(outputs.sum(1, keepdims=True), 1e-12)).astype(np.float32)

    @property
    def reads(self) -> bool:
        """Whether the model reads digits so, rather than by chance."""
        return self.accuracy >= CLEARLY

    def __str__(self) -> str:
        return f"pixels from {self.low:g} to {self.high:g}, {self.output}"


def fits(network: Any) -> bool:
    """Whether a model is from one image of 28 x 28 to ten numbers."""
    inputs, outputs = _shapes(network)
    return len(inputs) == 1 and inputs[0] in SHAPES and outputs == [(10,)]


def refuse_other_shapes(network: Any, name: str) -> None:
    """Raise UserError unless the model `fits`."""
    if fits(network):
        return
    inputs, outputs = _shapes(network)
    channels = " (channels first)" if inputs == [(1, 28, 28)] else ""
    raise UserError(
        f"model={name} maps {inputs}{channels} to {outputs}; allowed are "
        f"{', '.join(map(str, SHAPES))} to (10,)."
    )


def _shapes(network: Any) -> tuple[list, list]:
    inputs, outputs = (
        [tuple(tensor.shape[1:]) for tensor in tensors or ()]
        for tensors in (network.inputs, network.outputs)
    )
    return inputs, outputs


def fitted(network: Any, validation: Split) -> Adapter:
    """The adapter with which a model of these shapes reads some validation images best.

    Pixels from 0 to 1 unless another range is clearly better.
    """
    some = Split(validation.x[:LOOKED_AT], validation.y[:LOOKED_AT])
    shape = tuple(network.inputs[0].shape[1:])
    tried = []
    for low, high in RANGES:
        adapter = Adapter(shape, low, high)
        outputs = network.predict(adapter.inputs(some.x), batch_size=LOOKED_AT, verbose=0)
        accuracy = float((outputs.argmax(1) == some.y).mean())
        tried.append(Adapter(shape, low, high, _kind(outputs), accuracy))
    best = max(tried, key=lambda adapter: adapter.accuracy)
    return best if best.accuracy > tried[0].accuracy + 0.02 else tried[0]


def _kind(outputs: np.ndarray) -> str:
    if outputs.min() < 0 or outputs.max() > 1 + 1e-4:
        return "logits"
    return "probabilities" if np.allclose(outputs.sum(1), 1, atol=1e-3) else "sigmoids"
