"""Write tests/old_store.zip: what an earlier commit's train, evaluate, tune and convert left.

    python -m scripts.make_old_store PYTHON CHECKOUT

PYTHON is an interpreter with that commit's requirements, CHECKOUT a work tree of it. In the archive
are mlflow.db, tune.db, mlruns/ and out/, without pictures, the page and large files. Machine and
folders have other names in it: FOLDER stands for the one that all this was in.
"""

import os
import sqlite3
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from mnist_cnn.learning.data import load_test, load_training

FOLDER = "/folder-of-the-old-store"
LARGEST = 60_000  # bytes; Optuna's plots are larger
COMMANDS = (
    "train --dataset small.npz --filters 2,2,2 --epochs 1 --batch_size 32 --seed 1",
    "evaluate",
    "tune --dataset small.npz --trials 2 --workers 1 --epochs 1 --filters_choices 2,4",
    "convert",
)


def replace_in_database(path: Path, old: str, new: str) -> None:
    """Replace a text in every text column of every table of an SQLite database."""
    with sqlite3.connect(path) as database:
        tables = [
            row[0] for row in database.execute("select name from sqlite_master where type='table'")
        ]
        for table in tables:
            columns = [row[1] for row in database.execute(f'pragma table_info("{table}")')]
            for column in columns:
                database.execute(
                    f'update "{table}" set "{column}" = replace("{column}", ?, ?) '
                    f'where typeof("{column}") = \'text\' and instr("{column}", ?)',
                    (old, new, old),
                )
    database.execute("vacuum")
    database.close()


def replace_everywhere(folder: Path, old: str, new: str) -> None:
    """Replace a text in the databases and the text files of a store."""
    for path in folder.rglob("*"):
        if path.suffix == ".db":
            replace_in_database(path, old, new)
        elif path.name == "MLmodel" or path.suffix in (".yaml", ".json", ".txt"):
            path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))


def make(python: str, checkout: str, archive: Path) -> None:
    """Run the earlier commit's commands, and pack what they leave."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve() / "store"
        folder.mkdir()
        training, test = load_training("mnist").train, load_test("mnist")
        images = {"x_train": training.x[:1200, :, :, 0], "y_train": training.y[:1200]}
        images |= {"x_test": test.x[:300, :, :, 0], "y_test": test.y[:300]}
        np.savez(folder / "small.npz", **images)
        variables = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        for command in COMMANDS:
            words = [python, "-m", "mnist_cnn", *command.split()]
            subprocess.run(words, cwd=folder, env=variables | {"PYTHONPATH": checkout}, check=True)
        with sqlite3.connect(folder / "mlflow.db") as database:
            (process,) = database.execute("select value from tags where key='process'").fetchone()
        machine = process.rsplit(" ", 2)[0]
        for old, new in ((str(folder), FOLDER), (checkout, "/checkout"), (machine, "machine")):
            replace_everywhere(folder, old, new)
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in sorted(folder.rglob("*")):
                small = path.is_file() and (path.stat().st_size < LARGEST or path.suffix == ".db")
                needed = path.suffix not in (".npz", ".png", ".csv", ".html", ".js", ".css")
                if small and needed:
                    packed.write(path, path.relative_to(folder))


if __name__ == "__main__":
    make(*sys.argv[1:3], Path(__file__).parent.parent / "tests" / "old_store.zip")
