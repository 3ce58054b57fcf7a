"""Who is champion: the rule that `evaluate` follows, and a person's own decision.

The rule, on the validation images: a candidate becomes champion if there is none, or if an exact
one-sided McNemar test on the same images says, at 5 %, that it is better. Equal is not better,
so a worse model does not replace a better one.
"""

from __future__ import annotations

import mlflow
import numpy as np

from mnist_cnn import registry
from mnist_cnn.data import Training
from mnist_cnn.metrics import mcnemar
from mnist_cnn.model import predict
from mnist_cnn.registry import CHAMPION, NAME, Source
from mnist_cnn.tracking import tracked

LEVEL = 0.05


def promote(version: int) -> None:
    """Make `version` the champion, whatever the rule says."""
    with tracked("promote", version=version):
        source = registry.find(f"models:/{NAME}/{version}")
        before = registry.champion()
        _crown(source, f"Version {version} is champion by a person's decision.")
        print(f"Version {version} of {NAME} is the champion; before: {before or 'none'}.")


def gate(source: Source, right: np.ndarray, data: Training) -> str:
    """Apply the rule to a version; returns the verdict as a sentence, and keeps it on the version.

    `right`: booleans (n,), whether it answers each validation image of `data` rightly.
    """
    champion = registry.champion()
    if champion is None:
        return _crown(source, f"Version {source.version} is champion: there was none.")
    if champion.version == source.version:
        return f"Version {source.version} is the champion already."
    if champion.tags.get("dataset_digest") != data.digest:
        return _keep(
            source,
            f"Version {champion.version} stays champion: it was trained on other images, so the "
            f"two cannot be compared; `promote version={source.version}` decides by hand.",
        )

    old_right = predict(registry.load(champion), data.validation.x).argmax(1) == data.validation.y
    test = mcnemar(right, old_right)
    evidence = (
        f"on {len(right):,} validation images {test.only_new} are right only with version "
        f"{source.version}, {test.only_old} only with version {champion.version} "
        f"(exact McNemar p = {test.p_value:.3f}, {LEVEL} needed)."
    )
    mlflow.log_metrics({"gate_p_value": test.p_value})
    if test.p_value < LEVEL:
        return _crown(source, f"Version {source.version} is the new champion: {evidence}")
    return _keep(source, f"Version {champion.version} stays champion: {evidence}")


def _crown(source: Source, verdict: str) -> str:
    _keep(source, verdict)
    mlflow.MlflowClient().set_registered_model_alias(NAME, CHAMPION, source.version)
    return verdict


def _keep(source: Source, verdict: str) -> str:
    mlflow.set_tag("verdict", verdict)
    registry.tag(source, {"verdict": verdict})
    return verdict
