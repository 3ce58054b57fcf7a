"""The folder that convert writes: only its own files are ever replaced, one by one.

The folder itself is never exchanged, so links to it, its mode, owner and mount stay. Which files
are convert's own stands in a manifest, name and digest; a folder with anything else is refused.
"""

from __future__ import annotations

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
ANY = "*"  # in place of a digest

# The page as versions without a manifest wrote it; only the settings in it could differ.
EARLIER_PAGE = {
    "index.html": "c2d2f2ee8e90774a",
    "digits.html": "1a0b815b4301a4ec",
    "style.css": "5b29e7f2844f33c1",
    "prepare.js": "474933f755ad1f83",
    "page.js": "f3d97caf8cf895f4",
    "tf.min.js": "a1f9e32fd9b373cf",
    "tf-backend-wasm.min.js": "bdd8c3c1fb0b3760",
    "tfjs-backend-wasm.wasm": "70a5d516060464e5",
    "tfjs-backend-wasm-simd.wasm": "77ebb28a6d34f371",
}
SETTINGS = re.compile(rb'(?s)<script id="settings" type="application/json">.*?</script>')
EARLIER_SHARD = re.compile(r"group\d+-shard\d+of\d+\.bin")


def digest(content: bytes) -> str:
    """The first 16 hexadecimal digits of the sha256 of `content`."""
    return hashlib.sha256(content).hexdigest()[:16]


def check(output: str) -> None:
    """Raise UserError unless the folder can be made or filled without loss of anybody's file."""
    with _sentence(output) as folder:
        with suppress(FileNotFoundError):
            folder.stat()  # a name that is too long, a loop of links, a file on the way
        existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        if not existing.is_dir():
            raise UserError(f"output={output}: {existing} is not a folder.")
        tempfile.TemporaryFile(dir=existing).close()  # read-only?
        if existing == folder:
            _own_files(folder)


def replace(output: str, staged: Path) -> None:
    """Make the files of `staged` those of the folder. Raises UserError; then the old files stay.

    Killed at any moment, whoever reads model.json finds the old model whole or the new, and the
    next convert knows every file.
    """
    with _sentence(output) as folder:
        created = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / LOCK):
                _replace(folder, staged)
        except BaseException:
            if created:
                with suppress(OSError):
                    (folder / LOCK).unlink()
                    folder.rmdir()
            raise


def _replace(folder: Path, staged: Path) -> None:
    old = _own_files(folder)
    new = {path.name: digest(path.read_bytes()) for path in staged.iterdir()}
    partial = folder / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)  # left behind by a kill
    partial.mkdir()
    try:
        changed = [name for name in new if old.get(name) != new[name]]
        for name in changed:  # a full disk is met here, where nothing has changed yet
            shutil.copyfile(staged / name, partial / name)
        _write_manifest(partial / "before", [old, new])
        _write_manifest(partial / "after", [new])

        os.replace(partial / "before", folder / MANIFEST)
        # Weights under new names, the page, and model.json, which leads to all of them, last.
        for name in sorted(changed, key=_rank):
            if name == "model.json" and "index.html" not in new:
                (folder / "index.html").unlink(missing_ok=True)  # it is of another model
            os.replace(partial / name, folder / name)
        for name in old.keys() - new.keys():
            (folder / name).unlink(missing_ok=True)
        os.replace(partial / "after", folder / MANIFEST)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _rank(name: str) -> tuple[bool, bool, bool]:
    return name == "model.json", name.endswith(".html"), not name.endswith(".bin")


@contextmanager
def _sentence(output: str) -> Iterator[Path]:
    """The folder behind all links, and OSErrors as sentences."""
    try:
        yield Path(os.path.realpath(output))
    except OSError as error:
        raise UserError(f"output={output} cannot be written: {error.strerror or error}.") from None


def _own_files(folder: Path) -> dict[str, str]:
    """Name and digest of convert's files in `folder`. Raises UserError if there is another."""
    known = _manifest(folder) or _earlier(folder)
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name in IGNORED:
            continue
        regular = path.is_file() and not path.is_symlink()
        internal = {PARTIAL: path.is_dir() and not path.is_symlink(), LOCK: regular}
        if internal.get(path.name) or (path.name == MANIFEST and _manifest(folder)):
            continue
        if path.name not in known or not regular:
            raise UserError(
                f"output={folder} is a folder with other files in it ({path.name}); allowed is a "
                "new or empty folder, or one with nothing but what convert has written."
            )
        found[path.name] = _digest(path)
        if ANY not in known[path.name] and found[path.name] not in known[path.name]:
            raise UserError(
                f"output={folder}: {path.name} was changed since convert wrote it; move it away, "
                "or give another output."
            )
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _write_manifest(path: Path, generations: list[dict[str, str]]) -> None:
    names = sorted(set().union(*generations))
    files = {name: [g[name] for g in generations if name in g] for name in names}
    path.write_text(json.dumps({"written_by": WRITER, "files": files}, indent=1), encoding="utf-8")


def _json(path: Path) -> dict[str, Any]:
    """The JSON object of a file, empty if it is none."""
    with suppress(FileNotFoundError, ValueError, RecursionError):
        content = json.loads(path.read_bytes())
        if isinstance(content, dict):
            return content
    return {}


def _manifest(folder: Path) -> dict[str, list[str]]:
    """Names and possible digests of the files that the manifest lists; empty without one."""
    content = _json(folder / MANIFEST)
    files = content.get("files")
    if content.get("written_by") != WRITER or not isinstance(files, dict):
        return {}
    return {name: digests for name, digests in files.items() if isinstance(digests, list)}


def _earlier(folder: Path) -> dict[str, list[str]]:
    """The same for a folder of a version without a manifest, by the names that it wrote."""

    def published(path: Path) -> bool:
        without_settings = SETTINGS.sub(b"", path.read_bytes(), count=1)
        return digest(without_settings) == EARLIER_PAGE[path.name]

    pages = [folder / name for name in EARLIER_PAGE]
    page = all(path.is_file() for path in pages) and all(map(published, pages))
    model = _json(folder / "model.json")
    # A graph model was signed by the official converter, whose files may be somebody else's.
    if model.get("convertedBy") != "mnist_cnn" and not page:
        return {}
    shards: list[str] = []
    with suppress(KeyError, TypeError):  # a model.json of any content
        shards = [path for group in model["weightsManifest"] for path in group["paths"]]
    names = [
        "model.json",
        *filter(EARLIER_SHARD.fullmatch, shards),
        *(EARLIER_PAGE if page else ()),
    ]
    return {name: [ANY] for name in names}
