"""The model card of a version, from what was measured; sections of Mitchell et al. 2019."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from mnist_cnn.evaluation.corruptions import KINDS


def model_card(
    title: str,
    origin: Mapping[str, str],
    figures: Mapping[str, float],
    classes: pd.DataFrame,
    slices: pd.DataFrame,
) -> str:
    """Markdown. `origin`: how the model was made; `figures`: metrics of evaluate.

    `classes`: precision and recall of each digit; `slices`: accuracy of parts of the test images.
    """
    details = "\n".join(f"- {name}: {value}" for name, value in sorted(origin.items()))
    worst = slices.iloc[0]
    weakest = sorted((figures[f"robust_{name}"], name) for name in KINDS)[:3]
    return f"""# Model card: {title}

## Model details
A convolutional network, Keras 3, made by this project.
{details}

## Intended use
Reading one handwritten digit, centred as MNIST's makers did, in 28 x 28 grey pixels. Not for
amounts of money, addresses or anything else where a wrong digit does harm, and not for letters:
whatever it is shown, it answers with a digit.

## Factors
Writers differ in stroke, slant and size; cameras and scanners in noise, blur and light. MNIST says
nothing about its writers but that half were students, half employees of a census bureau, so
accuracy by age, hand or country is not known.

## Metrics
Accuracy with its 95 % Wilson interval; expected calibration error in 15 bins; means and losses with
95 % bootstrap intervals over the images; precision and recall of each digit; accuracy under
corruption (MNIST-C at its published strengths); invariance rates; accuracy under attack (FGSM; PGD
of 40 steps of 0.01), each pixel changed by at most epsilon of 1.

## Evaluation data
The test images of `{origin.get("dataset", "?")}`: they chose nothing.

## Training data
The training images of `{origin.get("dataset", "?")}` (digest {origin.get("dataset_digest", "?")})
without the last twelfth, which is for validation: every choice was made there.

## Quantitative analyses
| figure | value |
| --- | --- |
| test accuracy | {_interval(figures, "test_accuracy")} |
| test loss | {_interval(figures, "test_loss")} |
| calibration error | {_interval(figures, "test_ece")} |
| temperature fitted on validation | {figures["temperature"]:.2f} |
| calibration error with it | {_interval(figures, "test_ece_calibrated")} |
| validation accuracy | {figures["val_accuracy"]:.4f} |
| mean accuracy under MNIST-C | {_interval(figures, "robust_accuracy")} |
| the same, kinds unlike training's distortion | {_interval(figures, "robust_accuracy_unseen")} |
| answers that stay under every shift by one pixel | {figures["shift_invariance"]:.4f} |
| under FGSM, epsilon 0.1 | {_interval(figures, "fgsm_accuracy_0.1")} |
| under FGSM, epsilon 0.3 | {_interval(figures, "fgsm_accuracy")} |
| under PGD, epsilon 0.1 | {_interval(figures, "pgd_accuracy_0.1")} |
| under PGD, epsilon 0.3 | {_interval(figures, "pgd_accuracy")} |
| confidence in a blank image | {figures["blank_confidence"]:.4f} |
| mean confidence in pure noise | {figures["noise_confidence"]:.4f} |

Weakest under: {", ".join(f"{name} ({value:.3f})" for value, name in weakest)}.
Worst slice: {worst["slice"]}, {worst["accuracy"]:.4f} ({worst["low"]:.4f} to {worst["high"]:.4f}).

{_table(classes)}

{_table(slices)}

## Ethical considerations
No personal data beyond the anonymous digits of MNIST. A digit reader may be used to read what
people wrote without their knowledge; that is for whoever uses it to answer.

## Caveats and recommendations
Ask a person where the probability, calibrated by the temperature above, is low. Some 15 test labels
are wrong or unreadable, so nobody is perfect here. Prepare images as the page does.
"""


def _interval(figures: Mapping[str, float], name: str) -> str:
    low, high = figures[f"{name}_low"], figures[f"{name}_high"]
    return f"{figures[name]:.4f} ({low:.4f} to {high:.4f})"


def _table(frame: pd.DataFrame) -> str:
    rows = [frame.columns, ["---"] * len(frame.columns), *frame.round(4).map(str).to_numpy()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
