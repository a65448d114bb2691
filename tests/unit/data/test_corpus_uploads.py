"""Uploads of corpora on disk: a full disk loses nothing, and a deleted upload takes no more bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from resource import RLIMIT_FSIZE, getrlimit, setrlimit

import pytest

from tests.support import add_corpus, settings_in
from tests.support.refusals import refused
from trainer.contracts.corpora import UploadedFile, UploadRequest
from trainer.contracts.errors import ErrorCode
from trainer.data.corpora import CorpusStore
from trainer.data.corpus_uploads import CorpusUploads

TEXT = b"abc\n" * 2000


@contextmanager
def full_disk(most_bytes: int) -> Iterator[None]:
    """Let no file become longer, which the system reports as it reports a full disk."""
    before = getrlimit(RLIMIT_FSIZE)
    setrlimit(RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        setrlimit(RLIMIT_FSIZE, before)


def test_full_disk__leaves_the_upload_for_another_try(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    corpora = CorpusStore(settings)
    uploads = CorpusUploads(settings, corpora)
    file = UploadedFile(name="a.txt", bytes=len(TEXT), sha256=sha256(TEXT).hexdigest())
    status = uploads.start(UploadRequest(name="a", files=(file,)), None, is_limited=True)
    with full_disk(5000), pytest.raises(OSError, match="File too large"):
        uploads.append(status.upload_id, 0, TEXT)
    offset = uploads.status(status.upload_id, None).offset
    assert offset == 5000
    uploads.append(status.upload_id, offset, TEXT[offset:])
    with full_disk(5000), refused(ErrorCode.INSUFFICIENT_STORAGE, "The disk is full"):
        uploads.finish(status.upload_id, None)
    assert corpora.names() == ["demo", "udhr_ipa"]
    stored = uploads.finish(status.upload_id, None).corpus
    assert stored is not None and corpora.find(stored.name).read_bytes() == TEXT
    assert not [*tmp_path.rglob("*.tmp")]


def test_deleted_upload__takes_no_more_bytes(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    with refused(ErrorCode.DATA_NOT_FOUND, "There is no such upload"):
        CorpusUploads(settings, CorpusStore(settings)).append("none", 0, b"a")


def test_equal_upload__begins_again_once_its_corpus_is_gone(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    corpora = CorpusStore(settings)
    uploads = CorpusUploads(settings, corpora)
    request = UploadRequest(name="a", files=(UploadedFile(name="a.txt", bytes=len(TEXT)),))
    first = uploads.start(request, None, is_limited=True)
    uploads.append(first.upload_id, 0, TEXT)
    assert uploads.finish(first.upload_id, None).corpus is not None
    assert uploads.start(request, None, is_limited=True).corpus is not None
    corpora.find("a").unlink()
    assert uploads.start(request, None, is_limited=True) == first


def test_upload__with_the_name_of_a_corpus_of_another_size_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    add_corpus(tmp_path, TEXT.decode(), "a")
    uploads = CorpusUploads(settings, CorpusStore(settings))
    same = UploadRequest(name="a", files=(UploadedFile(name="a.txt", bytes=len(TEXT)),))
    assert uploads.start(same, None, is_limited=True).offset == 0
    longer = UploadRequest(name="a", files=(UploadedFile(name="a.txt", bytes=len(TEXT) + 1),))
    with refused(ErrorCode.CONFLICT, "'a'"):
        uploads.start(longer, None, is_limited=True)


def test_finished_upload__of_a_text_that_its_client_no_longer_has_begins_again(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    corpora = CorpusStore(settings)
    uploads = CorpusUploads(settings, corpora)
    request = UploadRequest(files=(UploadedFile(name="a.txt", bytes=len(TEXT)),))
    first = uploads.start(request, "one", is_limited=True)
    uploads.append(first.upload_id, 0, TEXT)
    stored = uploads.finish(first.upload_id, "one")
    assert uploads.start(request, "one", is_limited=True) == stored
    name = stored.sha256 or ""
    corpora.store(corpora.find(name), "other")
    assert corpora.leave_to_others(name, "one".__eq__)
    assert uploads.start(request, "one", is_limited=True) == first
    uploads.append(first.upload_id, 0, TEXT)
    assert uploads.finish(first.upload_id, "one") == stored and set(corpora.owners(name)) == {"one", "other"}
