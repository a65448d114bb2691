"""Model repositories of a Hugging Face hub of this machine: what the real client asks of them, and their history."""

import re
from collections.abc import Iterator, Mapping
from hashlib import sha1, sha256
from typing import NamedTuple

from pydantic import Base64Bytes, BaseModel, JsonValue
from pydantic_core import to_json

OWNER = "ana"
"""The only user, in whose name repositories can be created."""
_LICENCES = {"mit", "cc0-1.0", "unknown"}
_ROOT: Mapping[str, bytes] = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}


class Answer(NamedTuple):
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}


def as_json(value: object, status: int = 200) -> Answer:
    return Answer(status, to_json(value), {"Content-Type": "application/json"})


def refused(status: int, code: str = "") -> Answer:
    return Answer(status, b"{}", {"X-Error-Code": code} if code else {})


class _NewRepository(BaseModel):
    name: str
    organization: str | None = None
    visibility: str = "public"


class _Metadata(BaseModel):
    content: str


class _Sample(BaseModel):
    path: str


class _Preupload(BaseModel):
    files: list[_Sample]


class _Branch(BaseModel):
    startingPoint: str


class _Object(BaseModel):
    oid: str
    size: int


class _Batch(BaseModel):
    objects: list[_Object]


class _Header(BaseModel):
    summary: str
    parentCommit: str | None = None


class _File(BaseModel):
    path: str
    content: Base64Bytes


class _LargeFile(_Object):
    path: str


class _Line(BaseModel):
    key: str
    value: _LargeFile | _File | _Header


class Commit(NamedTuple):
    parent: str | None
    files: Mapping[str, bytes]


class Repository:
    """A repository: its commits by their ids, and the newest one of each branch."""

    def __init__(self, *, is_private: bool) -> None:
        self.is_private = is_private
        self.commits: dict[str, Commit] = {}
        self.branches = {"main": self._added(Commit(None, _ROOT))}

    def history(self, branch: str) -> list[Mapping[str, bytes]]:
        """Return the files of a branch after each of its commits, the newest last."""
        return [self.commits[commit_id].files for commit_id in self.ids(branch)][::-1]

    def ids(self, branch: str) -> Iterator[str]:
        """Yield the ids of the commits of a branch, newest first."""
        commit_id: str | None = self.branches[branch]
        while commit_id is not None:
            yield commit_id
            commit_id = self.commits[commit_id].parent

    def find(self, revision: str) -> str | None:
        """Return the commit of a branch or of a commit's id."""
        found = self.branches.get(revision, revision)
        return found if found in self.commits else None

    def commit(self, branch: str, files: Mapping[str, bytes]) -> str:
        parent = self.branches[branch]
        self.branches[branch] = self._added(Commit(parent, {**self.commits[parent].files, **files}))
        return self.branches[branch]

    def _added(self, commit: Commit) -> str:
        commit_id = sha1(repr(commit).encode()).hexdigest()  # noqa: S324
        self.commits[commit_id] = commit
        return commit_id


class Models:
    """The model repositories of a hub, by `<owner>/<name>`, and its store of large files."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.uploads: list[str] = []
        """Hashes of the large files that were sent, in their order."""

    def put(self, oid: str, body: bytes) -> Answer:
        """Store a large file, for whoever was told its address."""
        assert sha256(body).hexdigest() == oid
        self.objects[oid] = body
        self.uploads.append(oid)
        return Answer(200)

    def post(self, address: str, parts: list[str], body: bytes) -> Answer:
        """Answer a request that changes something, of a client with the right token."""
        match parts:
            case ["api", "repos", "create"]:
                return self._create(address, _NewRepository.model_validate_json(body))
            case ["api", "validate-yaml"]:
                found = re.search(r"^license: (.*)$", _Metadata.model_validate_json(body).content, re.MULTILINE)
                if found is not None and found[1] not in _LICENCES:
                    return as_json({"errors": [{"message": '"license" must be one of a list'}]}, 400)
                return as_json({})
            case [owner, name, "info", "lfs", "objects", "batch"]:
                assert f"{owner}/{name.removesuffix('.git')}" in self.repositories
                return as_json({"objects": [self._upload(address, one) for one in _objects(body)]})
            case ["api", "models", owner, name, *rest] if f"{owner}/{name}" in self.repositories:
                return self._change(self.repositories[f"{owner}/{name}"], address, rest, body)
            case _:
                return refused(404, "RepoNotFound")

    def get(self, parts: list[str], *, is_allowed: bool) -> Answer:
        """Answer a request that reads something; `is_allowed` is False without the right token."""
        match parts:
            case ["api", "models", owner, name, *rest]:
                asked = "api", *rest
            case [owner, name, "resolve", *rest]:
                asked = "resolve", *rest
            case _:
                return refused(404)
        repository = self.repositories.get(f"{owner}/{name}")
        if repository is None or (repository.is_private and not is_allowed):
            return refused(404 if is_allowed else 401, "RepoNotFound")
        match asked:
            case ["api"]:
                return _info(f"{owner}/{name}", repository, repository.branches["main"])
            case ["api", "revision", revision] if commit_id := repository.find(revision):
                return _info(f"{owner}/{name}", repository, commit_id)
            case ["api", "refs"]:
                branches = repository.branches.items()
                refs = [{"name": one, "ref": f"refs/heads/{one}", "targetCommit": commit} for one, commit in branches]
                return as_json({"branches": refs, "converts": [], "tags": []})
            case ["api", "commits", branch]:
                facts = {"authors": [], "date": "2026-01-01T00:00:00.000Z", "title": "", "message": ""}
                return as_json([{"id": commit_id, **facts} for commit_id in repository.ids(branch)])
            case ["api", "tree", revision, *within] if commit_id := repository.find(revision):
                return _tree(repository.commits[commit_id].files, "/".join(within))
            case ["resolve", revision, *within] if commit_id := repository.find(revision):
                return _content(repository.commits[commit_id].files, "/".join(within), commit_id)
            case _:
                return refused(404, "RevisionNotFound")

    def _create(self, address: str, new: _NewRepository) -> Answer:
        if new.organization not in (None, OWNER):
            return refused(403)
        name = f"{OWNER}/{new.name}"
        if name in self.repositories:
            return as_json({"url": f"{address}/{name}"}, 409)
        self.repositories[name] = Repository(is_private=new.visibility == "private")
        return as_json({"url": f"{address}/{name}"})

    def _upload(self, address: str, one: _Object) -> dict[str, JsonValue]:
        """Return where a large file goes; without an address if it is there."""
        told: dict[str, JsonValue] = {"oid": one.oid, "size": one.size}
        return told if one.oid in self.objects else told | {"actions": {"upload": {"href": f"{address}/lfs/{one.oid}"}}}

    def _change(self, repository: Repository, address: str, rest: list[str], body: bytes) -> Answer:
        match rest:
            case ["branch", branch]:
                if branch in repository.branches:
                    return refused(409)
                repository.branches[branch] = _Branch.model_validate_json(body).startingPoint
                return as_json({})
            case ["preupload", branch]:
                files = repository.commits[repository.branches[branch]].files
                paths = [file.path for file in _Preupload.model_validate_json(body).files]
                modes = {path: "lfs" if _is_large(path) else "regular" for path in paths}
                told = ({"path": path, "uploadMode": modes[path], "oid": _oid(path, files)} for path in paths)
                return as_json({"files": [{**one, "shouldIgnore": False} for one in told]})
            case ["commit", branch]:
                return self._commit(repository, address, branch, body)
            case _:
                return refused(404)

    def _commit(self, repository: Repository, address: str, branch: str, body: bytes) -> Answer:
        files: dict[str, bytes] = {}
        for line in body.splitlines():
            match _Line.model_validate_json(line).value:
                case _Header() as header:
                    if header.parentCommit not in (None, repository.branches[branch]):
                        return refused(412)
                case _LargeFile() as file:
                    files[file.path] = self.objects[file.oid]
                case _File() as file:
                    assert not _is_large(file.path)
                    files[file.path] = file.content
        commit_id = repository.commit(branch, files)
        return as_json({"commitUrl": f"{address}/{OWNER}/x/commit/{commit_id}", "commitOid": commit_id})


def _objects(body: bytes) -> list[_Object]:
    return _Batch.model_validate_json(body).objects


def _is_large(path: str) -> bool:
    return path.endswith(".safetensors")


def git_hash(content: bytes) -> str:
    """Return the hash by which git stores a file."""
    return sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324


def _oid(path: str, files: Mapping[str, bytes]) -> str | None:
    if path not in files:
        return None
    return sha256(files[path]).hexdigest() if _is_large(path) else git_hash(files[path])


def _lfs(path: str, content: bytes) -> dict[str, JsonValue] | None:
    """Return the description of a large file."""
    sizes: dict[str, JsonValue] = {"size": len(content), "pointerSize": 134}
    digest = sha256(content).hexdigest()
    return {**sizes, "sha256": digest, "oid": digest} if _is_large(path) else None


def _info(name: str, repository: Repository, commit_id: str) -> Answer:
    files = repository.commits[commit_id].files.items()
    siblings = [
        {"rfilename": path, "size": len(content), "blobId": git_hash(content), "lfs": _lfs(path, content)}
        for path, content in files
    ]
    return as_json({"id": name, "sha": commit_id, "private": repository.is_private, "tags": [], "siblings": siblings})


def _tree(files: Mapping[str, bytes], within: str) -> Answer:
    """List the files of a folder, with those below it."""
    entries = [
        {"type": "file", "path": path, "size": len(content), "oid": git_hash(content), "lfs": _lfs(path, content)}
        for path, content in files.items()
        if path.startswith(f"{within}/" if within else "")
    ]
    return as_json(entries) if entries else refused(404, "EntryNotFound")


def _content(files: Mapping[str, bytes], path: str, commit_id: str) -> Answer:
    headers = {"X-Repo-Commit": commit_id}
    if path not in files:
        return Answer(404, b"", {**headers, "X-Error-Code": "EntryNotFound"})
    return Answer(200, files[path], {**headers, "ETag": f'"{_oid(path, files)}"'})
