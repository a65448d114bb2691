"""Folders on NFS, which keeps open files: each deletion succeeds, and the next cleanup removes what is left."""

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from tests.support import ROOT, add_corpus, environment_in, settings_in, some_text
from tests.support.job_kinds import KINDS
from tests.support.object_stores import Bucket, accepted, bucket_fixture, replica, server_fixture
from tests.support.run_shell import FINISHED_RUN, TINY
from trainer.artifacts.deletion import TRASH
from trainer.artifacts.kinds import KINDS_BY_NAME
from trainer.artifacts.runs import RunStore
from trainer.contracts.corpora import UploadedFile, UploadRequest
from trainer.data.corpora import CorpusStore
from trainer.data.corpus_uploads import FOLDER, CorpusUploads
from trainer.system.files import DISK

__all__ = ["bucket_fixture", "server_fixture"]

_codes: TypeAdapter[list[int]] = TypeAdapter(list[int])
_typed: TypeAdapter[Sequence[Sequence[str]]] = TypeAdapter(Sequence[Sequence[str]])
_COMMANDS = """
import json, sys
from trainer.commands.main import main
print([main(words) for words in json.loads(sys.argv[1])])
"""
_RENAMED = "silly rename"


@pytest.fixture(scope="module", name="nfs")
def nfs_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that lets a process see its files as on NFS."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the NFS of the tests needs a C compiler, on Linux")
    library = tmp_path_factory.mktemp("nfs") / "silly_rename.so"
    source = ROOT / "tests" / "support" / "silly_rename.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def python(nfs: Path, folder: Path, code: str, *words: str, **environment: str) -> tuple[str, str]:
    """Run a program on NFS, which must succeed; return its output and its errors."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env={**environment_in(folder, **environment), "LD_PRELOAD": str(nfs), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def commands(nfs: Path, folder: Path, *words: Sequence[str], before: str = "", **environment: str) -> str:
    """Type commands of `mt` on NFS, each of which must succeed; return what they say."""
    out, errors = python(nfs, folder, before + _COMMANDS, _typed.dump_json(words).decode(), **environment)
    assert _codes.validate_json(out.strip().rpartition("\n")[2]) == [0] * len(words), errors
    return errors


def trash(folder: Path) -> list[Path]:
    return [*(folder / "artifacts" / TRASH).rglob("*")]


def test_jobs_of_every_kind_and_corpora__are_deleted(tmp_path: Path, nfs: Path) -> None:
    root, words = tmp_path / "artifacts", {"models": ["delete"]}
    for name in ("tokenizer", "experiment", "study", "battery"):
        words[re.sub("y$", "ie", name) + "s"] = [name, "delete"]
    typed: list[list[str]] = []
    for name in reversed(KINDS_BY_NAME):
        job = KINDS[name].create(root, 1)
        KINDS[name].end(root, job.job_id)
        typed.append([*words.get(name, ["job", "delete", name]), job.job_id, "--yes"])
    settings, text = settings_in(tmp_path), tmp_path / "text.txt"
    text.write_text(some_text(), encoding="utf-8")
    CorpusStore(settings).add("mine", text)
    said = commands(nfs, tmp_path, *typed, ["corpus", "delete", "mine", "--yes"])
    assert said.count(" is deleted.\n") == len(KINDS_BY_NAME) + 1 and _RENAMED not in said, said
    assert trash(tmp_path) == []
    assert [job for name in KINDS_BY_NAME for job in KINDS_BY_NAME[name].store(root).ids()] == []


def test_run_whose_log_is_open__is_deleted_and_the_rest_goes_with_the_next_cleanup(tmp_path: Path, nfs: Path) -> None:
    shutil.copytree(FINISHED_RUN, tmp_path, dirs_exist_ok=True)
    [run] = RunStore(tmp_path / "artifacts").all()
    names = [str(run.path / name) for name in ("events.jsonl", "eval/metrics.json")]
    follow = f"opened = [open(name) for name in {names}]"
    said = commands(nfs, tmp_path, ["delete", run.run_id, "--yes"], before=follow)
    assert f"{run.run_id} is deleted." in said and said.count(_RENAMED) == 2, said
    assert not run.path.exists()
    assert {path.name[:4] for path in trash(tmp_path) if path.is_file()} == {".nfs"}
    assert _RENAMED not in commands(nfs, tmp_path, ["gc"])
    assert trash(tmp_path) == []


def test_cleanup__removes_uploads_cached_texts_and_leftovers(tmp_path: Path, nfs: Path) -> None:
    settings = settings_in(tmp_path)
    uploads = CorpusUploads(settings, CorpusStore(settings))
    request = UploadRequest(files=(UploadedFile(name="text.txt", bytes=9),))
    old = uploads.start(request, "ann", is_limited=True)
    artifacts, cache = settings.app.artifacts_root, settings.app.corpus_cache
    left = [artifacts / FOLDER / old.upload_id, artifacts / ".import-1", artifacts / "models" / ".tmp-1", cache / "key"]
    left += [cache / ".tmp-1", artifacts / TRASH / "1"]
    for folder in left:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".nfs0001").write_bytes(b"abc")
        for path in (*folder.iterdir(), folder):
            os.utime(path, (1, 1))
    new = artifacts / "models" / ".tmp-2"
    new.mkdir()
    limits = {"APP__CORPUS_CACHE_CLEANUP__ENABLED": "true", "APP__CORPUS_CACHE_CLEANUP__MAX_BYTES": "0"}
    assert _RENAMED not in commands(nfs, tmp_path, ["gc"], **limits)
    assert [path for path in left if path.exists()] == [] and new.exists() and trash(tmp_path) == []


def test_upload__is_deleted_while_a_connection_writes_it_and_can_be_sent_again(tmp_path: Path, nfs: Path) -> None:
    code = """
from pathlib import Path
from tests.support import settings_in
from trainer.contracts.corpora import UploadedFile, UploadRequest
from trainer.data.corpora import CorpusStore
from trainer.data.corpus_uploads import FOLDER, CorpusUploads
from trainer.system.files import DISK

settings = settings_in(Path.cwd())
uploads = CorpusUploads(settings, CorpusStore(settings))
request = UploadRequest(name="mine", files=(UploadedFile(name="text.txt", bytes=9),))
upload = uploads.start(request, "ann", is_limited=True)
with open(settings.app.artifacts_root / FOLDER / upload.upload_id / "content", "ab"):
    uploads.delete(upload.upload_id, "ann")
assert uploads.start(request, "ann", is_limited=True).offset == 0
uploads.append(upload.upload_id, 0, b"men bol.\\n")
assert uploads.finish(upload.upload_id, "ann").corpus is not None
"""
    assert python(nfs, tmp_path, code)[1].count(_RENAMED) == 1


@pytest.mark.slow
def test_training__prunes_checkpoints_and_its_archive_is_imported(tmp_path: Path, nfs: Path) -> None:
    add_corpus(tmp_path, some_text())
    (tmp_path / "other").mkdir()
    train = ["train", *TINY, "--corpus", "text", "--set", "label=tiny", "--set", "num_epochs=6"]
    export = ["export", "tiny", "--format", "archive", "--out", "tiny.tar"]
    hub = ["export", "tiny", "--format", "hf", "--out", "folder"]
    said = commands(nfs, tmp_path, train, export, hub, [*hub, "--force"])
    [run] = RunStore(tmp_path / "artifacts").all()
    said += commands(nfs, tmp_path, ["delete", "tiny", "--yes"], ["import", "tiny.tar"], ["score", "tiny", "men"])
    said += commands(nfs, tmp_path, ["gc"], APP__CLEANUP__GRACE_PERIOD_SECONDS="0")
    assert "Traceback" not in said, said
    assert run.path.exists() and not [*run.checkpoints.iterdir()] and trash(tmp_path) == []
    assert [*tmp_path.rglob(".tmp-*"), *tmp_path.rglob(".import-*")] == []


def test_copy_of_a_run__is_renewed_and_deleted(tmp_path: Path, nfs: Path, bucket: Bucket) -> None:
    """The folder of a machine gets another writer's state, with the lock of the folder held meanwhile."""
    run = accepted(tmp_path / "a")
    writer = replica(bucket, tmp_path / "a")
    writer.publish()
    code = """
import sys
from pathlib import Path
from trainer.artifacts.object_store import ObjectStore
from trainer.artifacts.replicas import Replica
from trainer.config.settings import load_settings
Replica(ObjectStore(load_settings().object_store), Path("artifacts"), "models", sys.argv[1]).pull()
"""
    folder = tmp_path / "artifacts" / "models" / run.run_id
    python(nfs, tmp_path, code, run.run_id, **bucket.environment)
    (folder / "checkpoints" / "step-1").mkdir(parents=True)
    (folder / "checkpoints" / "step-1" / "state.json").write_bytes(b"{}")
    writer.claim()
    run.path.joinpath("events.jsonl").write_bytes(b"")
    writer.push()
    assert _RENAMED not in python(nfs, tmp_path, code, run.run_id, **bucket.environment)[1]
    assert (folder / "events.jsonl").read_bytes() == b"" and not (folder / "checkpoints").exists()


@pytest.mark.parametrize(("number", "name"), [(errno.ENOTEMPTY, "a"), (errno.EACCES, ".nfs1")])
def test_folder_that_cannot_be_removed_for_another_reason__is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, name: str
) -> None:
    """Another process writes files into it, or this one may not remove them."""

    def fail(_: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise OSError(number, os.strerror(number))

    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).write_bytes(b"abc")
    monkeypatch.setattr(shutil, "rmtree", fail)
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        DISK.remove_folder(tmp_path / "folder")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", name]


def test_file_that_is_closed_meanwhile__leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remove = shutil.rmtree

    def fail_once(path: Path, ignore_errors: bool = False) -> None:
        remove(path)
        if not ignore_errors:
            path.mkdir()
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(shutil, "rmtree", fail_once)
    DISK.remove_folder(tmp_path / "folder")
    assert [*tmp_path.iterdir()] == []
