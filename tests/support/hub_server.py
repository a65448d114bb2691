"""A Hugging Face hub of this machine: folders of data sets and models, for the real client by the hub's protocol."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

from pydantic import Base64Bytes, BaseModel, JsonValue
from pydantic_core import to_json

_COMMIT = "a" * 40
_USER = "ana"
"""The owner of new repositories."""


class _NewRepository(BaseModel):
    name: str


class _File(BaseModel):
    path: str
    content: Base64Bytes = b""


class _Preupload(BaseModel):
    files: list[_File]


class _CommitLine(BaseModel):
    key: str
    value: _File | dict[str, JsonValue]


class _Server(ThreadingHTTPServer):
    """A hub with gated data sets in the folders `<owner>/<name>`."""

    def __init__(self, folder: Path, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.token = folder, token


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        folder = server.folder
        if self.headers.get("Authorization", "") != f"Bearer {server.token}":
            self._answer(401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
            return
        match unquote(urlsplit(self.path).path).strip("/").split("/"):
            case ["api", "datasets", owner, name, "tree", _, *within]:
                self._list(folder / owner / name, within)
            case ["api", "datasets", _, _, *_]:
                self._json({"id": "", "sha": _COMMIT, "private": False, "gated": "manual", "siblings": []})
            case ["datasets", owner, name, "resolve", _, *within]:
                self._file(folder.joinpath(owner, name, *within))
            case _:
                self._answer(404, b"", {})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """Accept a new repository of the user, and a commit of small files to it."""
        server = self.server
        assert isinstance(server, _Server)
        body = self._body()
        if self.headers.get("Authorization", "") != f"Bearer {server.token}":
            self._answer(401, b"", {})
            return
        match urlsplit(self.path).path.strip("/").split("/"):
            case ["api", "repos", "create"]:
                name = f"{_USER}/{_NewRepository.model_validate_json(body).name}"
                self._json({"id": name, "url": f"http://{self.headers['Host']}/{name}"})
            case ["api", "validate-yaml"]:
                self._json({})
            case ["api", "models", _, _, "preupload", _]:
                files = _Preupload.model_validate_json(body).files
                self._json(
                    {"files": [{"path": file.path, "uploadMode": "regular", "shouldIgnore": False} for file in files]}
                )
            case ["api", "models", owner, name, "commit", _]:
                for line in body.splitlines():
                    _store(_CommitLine.model_validate_json(line), server.folder / owner / name)
                self._json(
                    {
                        "commitUrl": f"http://{self.headers['Host']}/{owner}/{name}/commit/{_COMMIT}",
                        "commitOid": _COMMIT,
                    }
                )
            case _:
                self._answer(404, b"", {})

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _list(self, repository: Path, within: list[str]) -> None:
        listed = repository.joinpath(*within)
        if listed.is_dir():
            self._json([_entry(path, repository) for path in sorted(listed.iterdir())])
        else:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})

    def _file(self, file: Path) -> None:
        if not file.is_file():
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": _COMMIT})
            return
        data = file.read_bytes()
        headers = {"ETag": f'"{sha256(data).hexdigest()}"', "X-Repo-Commit": _COMMIT}
        asked = self.headers.get("Range", "")
        if not asked:
            self._answer(200, data, headers)
            return
        first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
        part = data[first : last + 1]
        self._answer(206, part, {**headers, "Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(data)}"})

    def _json(self, value: object) -> None:
        self._answer(200, to_json(value), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@contextmanager
def hub_server(folder: Path, token: str) -> Iterator[str]:
    """Serve the data sets of a folder to those who send the token; yield the address."""
    with _Server(folder, token) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _entry(path: Path, repository: Path) -> dict[str, str | int]:
    kind = "directory" if path.is_dir() else "file"
    size = 0 if path.is_dir() else path.stat().st_size
    return {"type": kind, "path": path.relative_to(repository).as_posix(), "size": size, "oid": "b" * 40}


def _store(line: _CommitLine, repository: Path) -> None:
    if isinstance(line.value, _File):
        file = repository / line.value.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(line.value.content)
