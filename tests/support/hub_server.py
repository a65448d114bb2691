"""A Hugging Face hub of this machine: folders of data sets, and models, for the real client by the hub's protocol."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from urllib.parse import unquote, urlsplit

from tests.support.hub_models import Answer, Models, as_json, refused

_COMMIT = "a" * 40
Watch = Callable[[int, bool], Answer | None]
"""Gets the number of a request when it was heard, and when it was done; may return another answer, which ends it."""


class Hub(ThreadingHTTPServer):
    """A hub with gated data sets in the folders `<owner>/<name>`, and with models in memory."""

    def __init__(self, folder: Path, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.token = folder, token
        self.models = Models()
        self.requests: list[str] = []
        self.watch: Watch = lambda number, is_done: None
        self.one_by_one = Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._handle()

    do_HEAD = do_POST = do_PUT = do_GET

    def _handle(self) -> None:
        hub = self.server
        assert isinstance(hub, Hub)
        body = self._body()
        if self.path == "/api/agent-harnesses":  # the client asks once in a process, where programs type the commands
            self._send(refused(404))
            return
        with hub.one_by_one:
            hub.requests.append(f"{self.command} {self.path}")
            number = len(hub.requests)
            answer = hub.watch(number, False) or self._answer_of(hub, body)
            answer = hub.watch(number, True) or answer
        self._send(answer)

    def _answer_of(self, hub: Hub, body: bytes) -> Answer:
        authorization = self.headers.get("Authorization", "")
        is_allowed = authorization == f"Bearer {hub.token}"
        match self.command, unquote(urlsplit(self.path).path).strip("/").split("/"):
            case "PUT", ["lfs", oid]:
                return hub.models.put(oid, body)
            case "POST", parts:
                return hub.models.post(hub.url, parts, body) if is_allowed else refused(401)
            case _, ["api", "datasets", *_] | ["datasets", *_] if not is_allowed:
                return Answer(401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
            case _, ["api", "datasets", owner, name, "tree", _, *within]:
                return _listed(hub.folder / owner / name, within)
            case _, ["api", "datasets", _, _, *_]:
                return as_json({"id": "", "sha": _COMMIT, "private": False, "gated": "manual", "siblings": []})
            case _, ["datasets", owner, name, "resolve", _, *within]:
                return self._file(hub.folder.joinpath(owner, name, *within))
            case _, parts:
                return hub.models.get(parts, is_allowed=is_allowed)

    def _body(self) -> bytes:
        if "Transfer-Encoding" not in self.headers:
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _file(self, file: Path) -> Answer:
        if not file.is_file():
            return Answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": _COMMIT})
        data = file.read_bytes()
        headers = {"ETag": f'"{sha256(data).hexdigest()}"', "X-Repo-Commit": _COMMIT}
        asked = self.headers.get("Range", "")
        if not asked:
            return Answer(200, data, headers)
        first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
        part = data[first : last + 1]
        return Answer(206, part, {**headers, "Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(data)}"})

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def running_hub(folder: Path, token: str) -> Iterator[Hub]:
    """Serve the data sets of a folder and models to those who send the token."""
    with Hub(folder, token) as hub:
        thread = Thread(target=hub.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


@contextmanager
def hub_server(folder: Path, token: str) -> Iterator[str]:
    """Serve a hub; yield its address."""
    with running_hub(folder, token) as hub:
        yield hub.url


def _listed(repository: Path, within: list[str]) -> Answer:
    listed = repository.joinpath(*within)
    if not listed.is_dir():
        return refused(404, "EntryNotFound")
    return as_json([_entry(path, repository) for path in sorted(listed.iterdir())])


def _entry(path: Path, repository: Path) -> dict[str, str | int]:
    kind = "directory" if path.is_dir() else "file"
    size = 0 if path.is_dir() else path.stat().st_size
    return {"type": kind, "path": path.relative_to(repository).as_posix(), "size": size, "oid": "b" * 40}
