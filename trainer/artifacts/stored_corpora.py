"""Corpora in an object store, each under the hash of its content, with which it never changes."""

from hashlib import file_digest
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.contracts.base import FileRecord, Frozen
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import CorpusRef
from trainer.data.text import corpus_sha256, text_files
from trainer.system.files import DISK, filled_folder, written_aside

if TYPE_CHECKING:
    from trainer.artifacts.object_store import ObjectStore


class StoredCorpus(Frozen):
    """The files of a stored corpus."""

    is_folder: bool
    files: tuple[FileRecord, ...]


def store_corpus(objects: "ObjectStore", reference: CorpusRef, path: Path) -> None:
    """Store a corpus under its hash unless it is stored, and the hash under its name; raises SERVICE_UNAVAILABLE."""
    sha256 = reference.sha256
    if not objects.exists(_key(sha256)):
        files: list[FileRecord] = []
        for file in text_files(path):
            with file.open("rb") as content:
                digest = file_digest(content, "sha256").hexdigest()
                files.append(FileRecord(path=file.name, bytes=content.tell(), sha256=digest))
                content.seek(0)
                objects.put(_file_key(sha256, digest), content)
        stored = StoredCorpus(is_folder=path.is_dir(), files=tuple(files))
        objects.put(_key(sha256), stored.model_dump_json().encode())
    objects.put(_name_key(reference.name), sha256.encode())


def fetch_corpus(objects: "ObjectStore", sha256: str, folder: Path) -> None:
    """Download a corpus into a folder under its hash, unless it is there or is not stored.

    It appears there complete. Raises SERVICE_UNAVAILABLE, also if what is stored is not the corpus.
    """
    target = folder / sha256
    if target.exists():
        return
    found = objects.get(_key(sha256))
    if found is None:
        return
    stored = StoredCorpus.model_validate_json(found.data)
    if stored.is_folder:
        with filled_folder(target) as whole:
            for file in stored.files:
                _download(objects, sha256, file, whole / Path(file.path).name)
            _check(sha256, whole)
    else:
        DISK.make_folder(folder)
        with written_aside(target) as temporary:
            _download(objects, sha256, stored.files[0], temporary)
            _check(sha256, temporary)


def name_corpus(folder: Path, name: str, sha256: str) -> None:
    """Let a downloaded corpus be found by its name, instead of an earlier corpus of that name."""
    target, link = folder / sha256, folder / name
    if target.exists() and name != sha256 and not (link.exists() and link.samefile(target)):
        DISK.make_folder(link.parent)
        with written_aside(link) as temporary:
            temporary.symlink_to(target.resolve())


def fetch_named_corpus(objects: "ObjectStore", name: str, folder: Path) -> None:
    """Download the corpus that was last stored under a name, if there is one; raises SERVICE_UNAVAILABLE."""
    found = objects.get(_name_key(name))
    if found is not None:
        sha256 = found.data.decode()
        fetch_corpus(objects, sha256, folder)
        name_corpus(folder, name, sha256)


def delete_corpus(objects: "ObjectStore", name: str, sha256: str) -> None:
    """Delete a corpus from the store, and its content unless another name has it; raises SERVICE_UNAVAILABLE."""
    objects.delete([_name_key(name)])
    named = (objects.get(key) for key in objects.tags(_name_key("")))
    if not any(found is not None and found.data.decode() == sha256 for found in named):
        objects.delete([_key(sha256), *objects.tags(_file_key(sha256, ""))])


def _download(objects: "ObjectStore", sha256: str, file: FileRecord, target: Path) -> None:
    with target.open("wb") as content:
        objects.download(_file_key(sha256, file.sha256), content, file.bytes)
        content.flush()
        DISK.flush(content.fileno())


def _check(sha256: str, path: Path) -> None:
    if corpus_sha256(path) != sha256:
        message = "A corpus in the object store is damaged: delete it there, and start the training again."
        raise AppError(ErrorCode.SERVICE_UNAVAILABLE, message)


def _key(sha256: str) -> str:
    return f"corpora/{sha256}.json"


def _file_key(sha256: str, file_sha256: str) -> str:
    return f"corpora/{sha256}/{file_sha256}"


def _name_key(name: str) -> str:
    return f"corpus-names/{name}"
