"""Who is champion: the rule that `evaluate` follows, and a person's own decision.

The rule, on the validation images. A candidate becomes champion if
1. its accuracy is at least FLOOR, and if converted, TensorFlow.js answers as Keras does;
2. there is no champion, or an exact one-sided McNemar test on the same images says, at LEVEL, that
   the candidate is better: equal is not better, so a worse model never replaces a better one;
3. no corruption and no slice of the images costs it more than MARGIN of accuracy, where the same
   test says at LEVEL that the champion is better: a hundred images differ by that much by chance.
"""

from datetime import UTC, datetime
from pathlib import Path

import mlflow
import numpy as np
from filelock import FileLock

from mnist_cnn.evaluation import metrics, robustness
from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.data import Split, Training, cache_folder
from mnist_cnn.learning.model import predict
from mnist_cnn.tracking import failures, registry, runs
from mnist_cnn.tracking.registry import CHAMPION, NAME, ModelRef

FLOOR = 0.5
LEVEL = 0.05
MARGIN = 0.02
AGREEMENT = 0.999  # share of the answers that TensorFlow.js gives as Keras does
CORRUPTED = 2000  # validation images, the first, under each corruption
# The head of the table in the registered model's description, and what stands above it.
SINCE = "| since (UTC) | version | by |\n| --- | --- | --- |\n"
ABOUT = Path(metrics.__file__).with_name("registered_model.md").read_text(encoding="utf-8")


def promote(version: int) -> None:
    """Make `version` the champion, whatever the rule says."""
    with runs.tracked("promote", version=version):
        runs.name_run(f"promote v{version}")
        ref = registry.find(f"models:/{NAME}/{version}")
        before = registry.champion() or "none"
        verdict = f"Version {version} is champion by a person's decision.\nBefore: {before}."
        _conclude(ref, verdict, "a person")
        runs.describe_run(*verdict.splitlines())
    print(verdict)


def gate(ref: ModelRef, network: keras.Model, correct: np.ndarray, data: Training) -> str:
    """Apply the rule to a version and keep the verdict on it.

    `correct`: booleans (n,), whether `network` predicts each validation image of `data` correctly.
    Returns the verdict in a line, and its reasons, if there are any, in the lines below.
    """
    # One gate at a time on this machine; another machine's is seen by looking again at the end.
    with FileLock(cache_folder() / "gate.lock"):
        while True:
            champion = registry.champion()
            wins, verdict = _verdict(ref, network, correct, data, champion)
            if not wins or registry.champion() == champion:
                break
        _conclude(ref, verdict, "the rule" if wins else "")
    return verdict


def _verdict(
    ref: ModelRef, new: keras.Model, correct: np.ndarray, data: Training, champion: ModelRef | None
) -> tuple[bool, str]:
    """Whether the version becomes champion, and why."""
    this = f"version {ref.version}"
    stays = f"Version {champion.version} stays champion" if champion else "There is no champion"
    if correct.mean() < FLOOR:
        return False, f"{stays}: {this} has {correct.mean():.4f}, at least {FLOOR} needed."
    agreement = ref.tags.get("tfjs_agreement", "1")
    if float(agreement) < AGREEMENT:
        return False, f"{stays}: of {this} TensorFlow.js gives only {agreement} of Keras's answers."
    if champion is None:
        return True, f"{this.capitalize()} is champion: there was none."
    if champion.version == ref.version:
        return False, f"{this.capitalize()} is the champion already."
    if champion.tags.get("dataset_digest") != data.digest:
        told = f"{stays}: it was trained on other images, so nothing compares them"
        return False, f"{told}; `promote version={ref.version}` decides by hand."

    old, images = registry.load(champion), data.validation
    before = predict(old, images.x).argmax(1) == images.y
    p_value, gain = metrics.mcnemar(correct, before)
    mlflow.log_metrics({"gate/p_value": p_value, "gate/gain": gain[0]})
    p = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
    value, low, high = (f"{100 * share:+.2f}" for share in gain)
    evidence = (
        f"On {len(correct):,} validation images {(correct & ~before).sum()} are right only with "
        f"{this}, {(before & ~correct).sum()} only with version {champion.version}.\n"
        f"Exact McNemar {p}, {LEVEL} needed; gain {value} points, 95 % interval {low} to {high}."
    )
    wins = p_value < LEVEL
    if wins:
        loss, name = _largest_loss([new, old], [correct, before], images)
        mlflow.log_metric("gate/largest_loss", loss)
        allowed = f"{100 * MARGIN:.0f} allowed"
        evidence += f"\nLargest proven loss {100 * loss:.2f} points ({name}), {allowed}."
        wins = loss <= MARGIN
    told = f"{this.capitalize()} is the new champion" if wins else stays
    return wins, f"{told}.\n{evidence}"


def _largest_loss(models: list, correct: list[np.ndarray], images: Split) -> tuple[float, str]:
    """What the first of two models is proven to lose most, and where; `correct`: booleans (n,)."""
    slices = robustness.thirds(images.x)
    found = {name: [mine[few] for mine in correct] for name, few in slices.items()}
    with robustness.corruptions(images.x[:CORRUPTED]) as every:
        for name, _, bad in every:
            found[name] = [predict(m, bad).argmax(1) == images.y[:CORRUPTED] for m in models]
    tests = ((name, *metrics.mcnemar(old, new)) for name, (new, old) in found.items())
    proven = [(loss[0], name) for name, p_value, loss in tests if p_value < LEVEL]
    return max(proven, default=(0.0, "nowhere"))


def _conclude(ref: ModelRef, verdict: str, by: str) -> None:
    """Keep the verdict; if `by` made it champion, move the alias, and add a row to the table."""
    line = verdict.replace("\n", " ")
    mlflow.set_tag("verdict", line)
    registry.tag(ref, verdict=line)
    if not by:
        return
    client = mlflow.MlflowClient()
    failures.retry_on_conflict(client.set_registered_model_alias, NAME, CHAMPION, ref.version)
    text = client.get_registered_model(NAME).description or ""
    about, _, table = text.partition(SINCE)
    if not table:
        about = f"{about}\n\n{ABOUT}\n".lstrip()
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    rows = [*table.splitlines(), f"| {now}&nbsp; | {ref.version} | {by} |"][-50:]
    client.update_registered_model(NAME, about + SINCE + "\n".join(rows) + "\n")
