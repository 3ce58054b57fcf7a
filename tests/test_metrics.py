"""Figures against references that others made: a published matrix, scikit-learn, SciPy."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, precision_recall_fscore_support

from mnist_cnn.evaluation.metrics import (
    accuracy,
    best_temperature,
    bootstrapped,
    calibrated,
    calibration,
    cross_entropy,
    error_matrix,
    expected_calibration_error,
    likelihood,
    mcnemar,
    per_class,
    sure_from,
)


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
    assert accuracy(np.arange(10) < 9) == pytest.approx((0.9, 0.596, 0.982), abs=5e-4)
    assert accuracy(np.ones(10, bool))[2] == 1.0
    assert np.isnan(accuracy(np.ones(0, bool))).all()


def test_cross_entropy_is_scikit_learns():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 50)
    probabilities = rng.dirichlet(np.ones(10), 50).astype(np.float32)
    exact = probabilities.astype(float)
    exact /= exact.sum(axis=1, keepdims=True)
    expected = log_loss(labels, exact, labels=range(10))
    assert cross_entropy(labels, probabilities) == pytest.approx(expected, rel=1e-5)


def test_mcnemar_counts_only_images_where_the_two_differ():
    new = np.array([True] * 90 + [True] * 8 + [False] * 1 + [False])
    old = np.array([True] * 90 + [False] * 8 + [True] * 1 + [False])
    p_value, (gain, low, high) = mcnemar(new, old)
    assert p_value == pytest.approx((9 + 1) / 2**9)  # P(X >= 8), X ~ Binomial(9, 1/2)
    assert gain == pytest.approx(0.07)
    assert low < 0.07 < high < 0.09
    assert low > 0, "significant at 5 % on two sides as well"
    assert mcnemar(old, new)[0] > 0.99
    assert mcnemar(new, new) == (1.0, (0.0, 0.0, 0.0))


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def honest_and_boastful(n=20_000, boast=3.0):
    """Labels drawn from honest probabilities, those, and the same with logits times `boast`."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (n, 10))
    honest = softmax(logits)
    labels = (honest.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return labels, honest, softmax(boast * logits)


def test_calibration_error_is_near_0_only_for_the_honest():
    labels, honest, boastful = honest_and_boastful()
    correct = honest.argmax(axis=1) == labels
    assert expected_calibration_error(correct, honest.max(axis=1)) < 0.015
    assert expected_calibration_error(correct, boastful.max(axis=1)) > 0.1
    # By definition: all answers in one bin, so the distance of the two means.
    right, sure = np.arange(8) < 6, np.full(8, 0.95)
    assert expected_calibration_error(right, sure) == pytest.approx(0.95 - 6 / 8)
    bins = calibration(correct, boastful.max(axis=1))
    assert bins[0].sum() == len(labels)


def test_temperature_finds_how_much_was_boasted():
    labels, honest, boastful = honest_and_boastful()
    temperature = best_temperature(labels, boastful)
    assert temperature == pytest.approx(3.0, rel=0.05)
    np.testing.assert_allclose(calibrated(boastful, 3.0), honest, atol=1e-3)
    assert best_temperature(labels, honest) == pytest.approx(1.0, rel=0.05)


def test_likelihood_is_that_of_the_honest_answers_however_much_is_boasted():
    labels, honest, boastful = honest_and_boastful()
    expected = np.exp(-log_loss(labels, honest, labels=range(10)))
    assert likelihood(labels, honest) == pytest.approx(expected, abs=1e-4)
    assert likelihood(labels, boastful) == pytest.approx(expected, abs=1e-3)
    assert likelihood(labels, np.eye(10, dtype=np.float32)[labels]) == pytest.approx(1.0)


def test_sure_from_is_the_lowest_confidence_that_is_right_often_enough():
    probabilities = np.zeros((5, 10))
    probabilities[:, 0] = [0.9, 0.8, 0.7, 0.6, 0.5]
    labels = np.array([0, 0, 1, 0, 1])
    assert sure_from(labels, probabilities, 1.0) == 0.8
    assert sure_from(labels, probabilities, 0.75) == 0.6
    assert sure_from(np.ones(5, int), probabilities, 0.5) == 1.0


def test_equal_confidences_are_sure_together_or_not_at_all():
    probabilities = np.zeros((4, 10))
    probabilities[:, 0] = 0.9
    labels = np.array([0, 0, 1, 1])
    assert sure_from(labels, probabilities, 1.0) == 1.0
    assert sure_from(labels, probabilities, 0.5) == 0.9


def test_bootstrap_interval_of_a_mean_is_the_normal_one():
    labels, honest, _ = honest_and_boastful(2000)
    value, low, high = bootstrapped(cross_entropy, labels, honest)
    losses = -np.log(honest[np.arange(len(labels)), labels])
    half = 1.96 * losses.std() / len(losses) ** 0.5
    assert value == pytest.approx(losses.mean())
    assert (low, high) == pytest.approx((losses.mean() - half, losses.mean() + half), rel=0.05)


def test_precision_and_recall_are_scikit_learns():
    rng = np.random.default_rng(0)
    labels, guesses = rng.integers(0, 9, (2, 300))  # no 9: nothing to divide by
    table = per_class(labels, guesses)
    precision, recall, _, support = precision_recall_fscore_support(
        labels, guesses, labels=range(9), zero_division=0
    )
    np.testing.assert_allclose(table.precision[:9], precision)
    np.testing.assert_allclose(table.recall[:9], recall)
    assert table.images[:9].tolist() == support.tolist()
    assert table.recall.isna().tolist() == [False] * 9 + [True]
    assert (table.recall_low[:9] <= table.recall[:9]).all()
    assert (table.recall_high[:9] > table.recall[:9]).all()
