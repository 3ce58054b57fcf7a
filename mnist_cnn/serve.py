"""`mlflow run . -e serve`: the page that convert wrote, on the loopback address."""

import socket
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from mnist_cnn.parameters import UserError

LOOPBACK = "127.0.0.1"


def serve(output: str, port: int) -> None:
    """Serve the files of `output` until Ctrl-C. Raises UserError without a page or a free port."""
    folder = Path(output).resolve()
    if not (folder / "index.html").is_file():
        converted = (folder / "model.json").is_file()
        why = "its model reads no digits" if converted else "first mlflow run . -e convert"
        raise UserError(f"output={output} holds no page: {why}.")
    try:
        server = ThreadingHTTPServer((LOOPBACK, port), partial(Files, directory=str(folder)))
    except OSError as error:
        with socket.create_server((LOOPBACK, 0)) as other:
            free = other.getsockname()[1]
        told = f"port={port} cannot be used ({error.strerror})"
        raise UserError(f"{told}; free is -P port={free}.") from None
    with server, suppress(KeyboardInterrupt):  # and SIGTERM: __main__.py
        print(f"Draw a digit: http://{LOOPBACK}:{port}/ (Ctrl-C stops)", flush=True)
        server.serve_forever()
    print("Stopped.")


class Files(SimpleHTTPRequestHandler):
    """The files of one folder: no listings, nothing outside of it, only for this machine's name."""

    def handle(self) -> None:
        """Answer one request; a browser that goes away in the middle is no error."""
        with suppress(ConnectionError):
            super().handle()

    def send_head(self) -> Any:
        """Refuse what is not a file inside the folder, and requests in another host's name."""
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        inside = path.is_file() and path.resolve().is_relative_to(self.directory)
        if not inside or host not in (LOOPBACK, "localhost"):  # another name: DNS rebinding
            self.send_error(404)
            return None
        return super().send_head()

    def end_headers(self) -> None:
        """Always the newest files, taken as what they say they are."""
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing of any request."""
