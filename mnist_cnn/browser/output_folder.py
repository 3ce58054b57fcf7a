"""The folder that convert writes: only its own files are ever replaced, one by one.

The folder itself is never exchanged, so links to it, its mode, owner and mount stay. Which files
are convert's own stands in a manifest, name and digest; a folder with anything else is refused.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from mnist_cnn.parameters import UserError

MANIFEST, LOCK = "convert_manifest.json", ".convert.lock"
PARTIAL = ".convert.partial"  # a folder inside, for a rename must not cross file systems
WRITER = "mnist_cnn convert"
# Put there by operating systems, or by MLflow with --output . ; never read, never changed.
IGNORED = frozenset("lost+found .DS_Store Thumbs.db desktop.ini mlruns mlflow.db".split())
EARLIER_PAGE = frozenset(  # versions without a manifest wrote all of it or none of it
    """index.html digits.html style.css prepare.js page.js tf.min.js tf-backend-wasm.min.js
    tfjs-backend-wasm.wasm tfjs-backend-wasm-simd.wasm""".split()
)
EARLIER_MODEL = re.compile(r"model\.json|group\d+-shard\d+of\d+\.bin")


def digest(content: bytes) -> str:
    """The first 16 hexadecimal digits of the sha256 of `content`."""
    return hashlib.sha256(content).hexdigest()[:16]


def check(output: str) -> None:
    """Raise UserError unless the folder can be made or filled without loss of anybody's file."""
    with _sentence(output) as folder:
        with suppress(FileNotFoundError):
            folder.stat()  # a name that is too long, a loop of links, a file on the way
        existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        tempfile.TemporaryFile(dir=existing).close()  # a file, or read-only?
        if existing == folder:
            _own_files(folder)


def replace(output: str, staged: Path) -> None:
    """Make the files of `staged` those of the folder. Raises UserError; then the old files stay.

    Killed at any moment, whoever reads model.json finds the old model whole or the new, and the
    next convert knows every file.
    """
    with _sentence(output) as folder:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):
            old = _own_files(folder)
            partial = folder / PARTIAL
            shutil.rmtree(partial, ignore_errors=True)  # left behind by a kill
            partial.mkdir()
            try:
                _exchange(folder, partial, staged, old)
            finally:
                shutil.rmtree(partial, ignore_errors=True)


def _exchange(folder: Path, partial: Path, staged: Path, old: dict[str, str]) -> None:
    new = {path.name: digest(path.read_bytes()) for path in staged.iterdir()}
    changed = [name for name in new if old.get(name) != new[name]]
    for name in changed:  # a full disk is met here, where nothing has changed yet
        shutil.copyfile(staged / name, partial / name)
    before = {name: [one[name] for one in (old, new) if name in one] for name in old | new}
    after = {name: [known] for name, known in new.items()}
    for file, files in (("before", before), ("after", after)):
        text = json.dumps({"written_by": WRITER, "files": files}, indent=1, sort_keys=True)
        (partial / file).write_text(text, encoding="utf-8")

    os.replace(partial / "before", folder / MANIFEST)
    # Weights under new names, the page, and model.json, which leads to all of them, last.
    last = {".json": 2, ".html": 1, ".bin": -1}
    for name in sorted(changed, key=lambda name: last.get(Path(name).suffix, 0)):
        if name == "model.json" and "index.html" not in new:
            (folder / "index.html").unlink(missing_ok=True)  # it is of another model
        os.replace(partial / name, folder / name)
    for name in old.keys() - new.keys():
        (folder / name).unlink(missing_ok=True)
    os.replace(partial / "after", folder / MANIFEST)


@contextmanager
def _sentence(output: str) -> Iterator[Path]:
    """The folder behind all links, and OSErrors as sentences."""
    try:
        yield Path(os.path.realpath(output))
    except OSError as error:
        raise UserError(f"output={output} cannot be written: {error.strerror or error}.") from None


def _own_files(folder: Path) -> dict[str, str]:
    """Name and digest of convert's files in `folder`. Raises UserError if there is another."""
    manifest = _json(folder / MANIFEST)
    ours = manifest.get("written_by") == WRITER and isinstance(manifest.get("files"), dict)
    known = manifest["files"] if ours else _earlier(folder)
    internal = {PARTIAL, LOCK, MANIFEST} if ours else {PARTIAL, LOCK}
    found = {}
    for path in sorted(folder.iterdir()):
        name, link = path.name, path.is_symlink()
        if name in IGNORED or (name in internal and not link):
            continue
        own = name in known and path.is_file() and not link
        found[name] = digest(path.read_bytes()) if own else ""
        if not own or (ours and found[name] not in str(known[name])):
            told = f"output={folder} is a folder with other files in it: {name} is not convert's or"
            raise UserError(f"{told} was changed; allowed is a new or empty folder, or convert's.")
    return found


def _json(path: Path) -> dict[str, Any]:
    """The JSON object of a file, empty if it is none."""
    with suppress(FileNotFoundError, ValueError, TypeError, RecursionError):
        return dict(json.loads(path.read_bytes()))
    return {}


def _earlier(folder: Path) -> dict[str, None]:
    """Names of the files of a version without a manifest; no digest of theirs is known."""
    names = {path.name for path in folder.iterdir()}
    page = EARLIER_PAGE if names >= EARLIER_PAGE else frozenset()
    # A graph model was signed by the official converter, whose files may be somebody else's.
    if _json(folder / "model.json").get("convertedBy") != "mnist_cnn" and not page:
        return {}
    return {name: None for name in names if name in page or EARLIER_MODEL.fullmatch(name)}
