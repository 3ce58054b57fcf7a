"""Figures against references that others made: a published matrix, scikit-learn, SciPy."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from mnist_cnn.metrics import accuracy_interval, cross_entropy, error_matrix, mcnemar


def test_error_matrix_is_the_published_one():
    """The row of digit 2 as the original project printed it, from its counts."""
    confusion = np.eye(10, dtype=int)
    confusion[2] = [1, 0, 1014, 2, 1, 0, 0, 9, 5, 0]
    row = error_matrix(confusion)[2]
    assert confusion[2].sum() == 1032
    expected = [0.00096899, 0, 0, 0.00193798, 0.00096899, 0, 0, 0.00872093, 0.00484496, 0]
    np.testing.assert_allclose(row, expected, atol=5e-9)


def test_error_matrix_of_a_class_without_images_is_zero():
    assert error_matrix(np.zeros((10, 10), int)).tolist() == np.zeros((10, 10)).tolist()


def test_interval_is_wilsons():
    # Agresti and Coull 1998: 9 of 10 gives 0.596 to 0.982.
    assert accuracy_interval(9, 10) == pytest.approx((0.596, 0.982), abs=5e-4)
    assert accuracy_interval(10, 10)[1] == 1.0


def test_cross_entropy_is_scikit_learns():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 50)
    probabilities = rng.dirichlet(np.ones(10), 50).astype(np.float32)
    expected = log_loss(labels, probabilities.astype(float), labels=range(10))
    assert cross_entropy(labels, probabilities) == pytest.approx(expected, rel=1e-5)


def test_mcnemar_counts_only_images_where_the_two_differ():
    new = np.array([True] * 90 + [True] * 8 + [False] * 1 + [False])
    old = np.array([True] * 90 + [False] * 8 + [True] * 1 + [False])
    test = mcnemar(new, old)
    assert (test.only_new, test.only_old) == (8, 1)
    assert test.p_value == pytest.approx((9 + 1) / 2**9)  # P(X >= 8), X ~ Binomial(9, 1/2)
    assert mcnemar(old, new).p_value > 0.99
    assert mcnemar(new, new).p_value == 1.0
