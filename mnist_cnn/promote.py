"""Who is champion: the rule that `evaluate` follows, and a person's own decision.

The rule, on the validation images. A candidate becomes champion if

1. it is right at least as often as FLOOR, and if converted, TensorFlow.js answers as Keras does;
2. there is no champion, or an exact one-sided McNemar test on the same images says, at LEVEL, that
   the candidate is better: equal is not better, so a worse model never replaces a better one;
3. no corruption and no slice of the images costs it more than MARGIN of accuracy; a loss counts if
   the same test says at LEVEL that the champion is better there, for a hundred images differ by
   more than MARGIN by chance.
"""

from __future__ import annotations

from datetime import UTC, datetime

import mlflow
import numpy as np
from filelock import FileLock

from mnist_cnn.evaluation.corruptions import KINDS, corrupted
from mnist_cnn.evaluation.metrics import mcnemar
from mnist_cnn.evaluation.robustness import thirds
from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.data import Split, Training, cache_folder
from mnist_cnn.learning.model import predict
from mnist_cnn.tracking import registry
from mnist_cnn.tracking.registry import CHAMPION, NAME, Source
from mnist_cnn.tracking.runs import retry_on_conflict, tracked

FLOOR = 0.5
LEVEL = 0.05
MARGIN = 0.02
AGREEMENT = 0.999  # share of the answers that TensorFlow.js gives as Keras does
CORRUPTED = 2000  # validation images, the first, under each corruption
HISTORY = "champions"  # tag of the registered model: who was champion since when, newest last


def promote(version: int) -> None:
    """Make `version` the champion, whatever the rule says."""
    with tracked("promote", version=version):
        source = registry.find(f"models:/{NAME}/{version}")
        before = registry.champion()
        _set_champion(source, f"Version {version} is champion by a person's decision.")
        print(f"Version {version} of {NAME} is the champion; before: {before or 'none'}.")


def gate(source: Source, network: keras.Model, right: np.ndarray, data: Training) -> str:
    """Apply the rule to a version; returns the verdict as a sentence, and keeps it on the version.

    `right`: booleans (n,), whether `network` answers each validation image of `data` rightly.
    """
    # One gate at a time on this machine; another machine's is seen by looking again at the end.
    cache_folder().mkdir(parents=True, exist_ok=True)
    with FileLock(cache_folder() / "gate.lock"):
        while True:
            champion = registry.champion()
            wins, verdict = _verdict(source, network, right, data, champion)
            if not wins:
                return _save_verdict(source, verdict)
            now = registry.champion()
            if (now and now.version) == (champion and champion.version):
                return _set_champion(source, verdict)


def _verdict(
    source: Source,
    network: keras.Model,
    right: np.ndarray,
    data: Training,
    champion: Source | None,
) -> tuple[bool, str]:
    """Whether the version becomes champion, and why."""
    stays = f"Version {champion.version} stays champion" if champion else "There is no champion"
    accuracy = float(right.mean())
    if accuracy < FLOOR:
        return (
            False,
            f"{stays}: version {source.version} has {accuracy:.4f}, at least {FLOOR} needed.",
        )
    if float(source.tags.get("tfjs_agreement", 1)) < AGREEMENT:
        return False, (
            f"{stays}: of version {source.version} TensorFlow.js gives only "
            f"{source.tags['tfjs_agreement']} of Keras's answers."
        )
    if champion is None:
        return True, f"Version {source.version} is champion: there was none."
    if champion.version == source.version:
        return False, f"Version {source.version} is the champion already."
    if champion.tags.get("dataset_digest") != data.digest:
        return False, (
            f"{stays}: it was trained on other images, so the two cannot be compared; "
            f"`promote version={source.version}` decides by hand."
        )

    old = registry.load(champion)
    old_right = predict(old, data.validation.x).argmax(1) == data.validation.y
    test = mcnemar(right, old_right)
    evidence = (
        f"on {len(right):,} validation images {test.only_new} are right only with version "
        f"{source.version}, {test.only_old} only with version {champion.version} "
        f"(exact McNemar p = {test.p_value:.3f}, {LEVEL} needed; gain {100 * test.gain:+.2f} "
        f"points, 95 % interval {100 * test.low:+.2f} to {100 * test.high:+.2f})"
    )
    mlflow.log_metrics({"gate_p_value": test.p_value, "gate_gain": test.gain})
    if test.p_value >= LEVEL:
        return False, f"{stays}: {evidence}."
    name, loss = _largest_loss(network, old, data.validation, right, old_right)
    mlflow.log_metric("gate_largest_loss", loss)
    evidence += (
        f"; largest proven loss {100 * loss:.2f} points ({name}), {100 * MARGIN:.0f} allowed."
    )
    if loss > MARGIN:
        return False, f"{stays}: {evidence}"
    return True, f"Version {source.version} is the new champion: {evidence}"


def _largest_loss(
    new: keras.Model, old: keras.Model, images: Split, new_right: np.ndarray, old_right: np.ndarray
) -> tuple[str, float]:
    """Under which corruption or in which slice `new` is proven to lose most, and how much."""
    pairs = {name: (old_right[few], new_right[few]) for name, few in thirds(images.x).items()}
    some = Split(images.x[:CORRUPTED], images.y[:CORRUPTED])
    for kind in KINDS:
        bad = corrupted(kind, some.x)
        before, after = (predict(model, bad).argmax(1) == some.y for model in (old, new))
        pairs[kind] = before, after
    tests = {name: mcnemar(*pair) for name, pair in pairs.items()}
    losses = {name: test.gain for name, test in tests.items() if test.p_value < LEVEL}
    return max(losses.items(), key=lambda loss: loss[1], default=("nowhere", 0.0))


def _set_champion(source: Source, verdict: str) -> str:
    _save_verdict(source, verdict)
    client = mlflow.MlflowClient()
    before = registry.champion()
    retry_on_conflict(client.set_registered_model_alias, NAME, CHAMPION, source.version)
    lines = client.get_registered_model(NAME).tags.get(HISTORY, "").splitlines()
    now = datetime.now(UTC).isoformat(" ", "minutes")
    # Crowned by other hands, or a kill came between the alias and its line.
    if before and not (lines and lines[-1].endswith(f"version {before.version}")):
        lines.append(f"before {now}: version {before.version}")
    lines.append(f"{now}: version {source.version}")
    retry_on_conflict(client.set_registered_model_tag, NAME, HISTORY, "\n".join(lines[-50:]))
    return verdict


def _save_verdict(source: Source, verdict: str) -> str:
    mlflow.set_tag("verdict", verdict)
    registry.tag(source, {"verdict": verdict})
    return verdict
