"""Muon: SGD whose updates of convolution kernels are made nearly orthogonal."""

from mnist_cnn.learning.backend import keras, tf


class Muon(keras.optimizers.SGD):
    """SGD with momentum; a convolution's update, as a matrix, goes through Newton-Schulz steps.

    Jordan et al. 2024 (kellerjordan.github.io/posts/muon): singular values come near 1, so that a
    step moves every direction of a kernel alike. Keras's own Muon leaves convolutions to Adam.
    """

    def update_step(  # noqa: D102
        self, gradient: tf.Tensor, variable: keras.Variable, learning_rate: tf.Tensor
    ) -> None:
        if len(variable.shape) != 4:
            super().update_step(gradient, variable, learning_rate)
            return
        momentum = self.momentums[self._get_variable_index(variable)]
        self.assign(momentum, self.momentum * momentum + gradient)
        update = self.momentum * momentum + gradient if self.nesterov else momentum.value
        matrix = tf.reshape(update, (-1, variable.shape[-1]))
        step = tf.reshape(orthogonalized(matrix), variable.shape)
        self.assign_sub(variable, tf.cast(learning_rate, tf.float32) * step)


def orthogonalized(matrix: tf.Tensor) -> tf.Tensor:
    """`matrix` float32 (m, n) with its singular values brought near 1 (0.7 to 1.2)."""
    matrix /= tf.norm(matrix) + 1e-7
    for _ in range(3):
        gram = tf.matmul(matrix, matrix, transpose_a=True)
        matrix = 3.4445 * matrix + matrix @ (-4.775 * gram + 2.0315 * gram @ gram)
    return matrix
