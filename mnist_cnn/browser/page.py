"""The page where a person draws a digit: index.html with its files, and digits.html, all in one.

TensorFlow.js comes from npm; the page's own files are in static/. Nothing is fetched from
elsewhere, and a Content-Security-Policy forbids it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from mnist_cnn.browser import node
from mnist_cnn.browser.drawings import PAGE
from mnist_cnn.learning.adapter import Adapter

_DIST = "node_modules/@tensorflow"
LIBRARIES = {
    "tf.min.js": f"{_DIST}/tfjs/dist/tf.es2017.min.js",
    "tf-backend-wasm.min.js": f"{_DIST}/tfjs-backend-wasm/dist/tf-backend-wasm.es2017.min.js",
    "tfjs-backend-wasm.wasm": f"{_DIST}/tfjs-backend-wasm/dist/tfjs-backend-wasm.wasm",
    "tfjs-backend-wasm-simd.wasm": f"{_DIST}/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm",
}
OWN = ("style.css", "prepare.js", "page.js", "tell.js")
POLICY = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "


@dataclass(frozen=True)
class Settings:
    """What the page knows of its model: format, temperature, from when it is sure, its inputs."""

    output_format: str
    temperature: float
    sure_from: float
    none_below: float  # an answer of less confidence than this is no digit
    adapter: Adapter


def write(folder: Path, settings: Settings) -> None:
    """Add the page to `folder`, which holds model.json and its shards."""
    modules = node.modules()
    for name, path in LIBRARIES.items():
        shutil.copyfile(modules / path, folder / name)
    for name in OWN:
        shutil.copyfile(PAGE / name, folder / name)

    scripts = [name for name in LIBRARIES if name.endswith(".js")] + list(OWN[1:])
    index = _html(
        POLICY + "script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self'",
        '<link rel="stylesheet" href="style.css">',
        asdict(settings),
        "\n".join(f'<script src="{name}"></script>' for name in scripts),
    )
    (folder / "index.html").write_text(index, encoding="utf-8")

    # A file cannot fetch WebAssembly: digits.html computes in plain JavaScript.
    inline = [_text(folder / name) for name in ("tf.min.js", *OWN[1:])]
    style = _text(folder / "style.css")
    digits = _html(
        POLICY + f"script-src {' '.join(map(_hash, inline))}; style-src {_hash(style)}",
        f"<style>{style}</style>",
        asdict(settings) | {"model": _embedded(folder)},
        "\n".join(f"<script>{script}</script>" for script in inline),
    )
    (folder / "digits.html").write_text(digits, encoding="utf-8")


def _html(policy: str, style: str, settings: dict, scripts: str) -> str:
    data = json.dumps(settings).replace("<", "\\u003c")  # or metadata could end the element
    filled = {"csp": policy, "style": style, "settings": data, "scripts": scripts}
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    for name, text in filled.items():
        html = html.replace("{{" + name + "}}", text, 1)
    return html


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8").replace("\r\n", "\n").replace("</script", "<\\/script")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _embedded(folder: Path) -> dict:
    model = json.loads((folder / "model.json").read_text())
    manifest = model["weightsManifest"]
    shards = [(folder / path).read_bytes() for group in manifest for path in group["paths"]]
    return {
        "topology": model["modelTopology"],
        "format": model["format"],
        "specs": [weight for group in manifest for weight in group["weights"]],
        "data": base64.b64encode(b"".join(shards)).decode(),
    }
