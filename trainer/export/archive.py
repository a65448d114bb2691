"""Export of a finished run to one file, and import of such a file, whose model must load."""

import tarfile
from collections.abc import Mapping
from hashlib import sha256
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import BinaryIO

from trainer.artifacts.archives import ARCHIVE_FILE, ArchiveRecord, portable_files, restore_archive
from trainer.artifacts.runs import RunDirectory
from trainer.artifacts.tokenizer_files import read_manifest
from trainer.contracts.base import FileRecord
from trainer.export.card import passport
from trainer.export.verification import check_whole
from trainer.system.destination import appearing_at, check_free
from trainer.system.files import DISK, Disk, file_records, open_regular


def export_archive(run: RunDirectory, file: Path, licence: str | None = None, *, force: bool = False) -> ArchiveRecord:
    """Write a completed run to a new file, atomically; with `force` it replaces a file.

    The log and the Discord messages are left out.

    Raises RUN_NOT_READY, CONFLICT if the file exists, and MODEL_LOAD_FAILED if the run's files have changed.
    """
    manifest = run.completed_manifest()
    check_free(file, is_earlier=force and file.is_file(), for_folder=False)
    with run.in_use():
        check_whole(run)
        added = passport(manifest, read_manifest(run.tokenizer), "archive", licence)
        described = (
            FileRecord(path=name, bytes=len(content), sha256=sha256(content).hexdigest())
            for name, content in added.items()
        )
        files = (*file_records(run.path, portable_files(run)), *described)
        record = ArchiveRecord(run_id=run.run_id, files=files)
        with appearing_at(file) as temporary, open(temporary, "xb") as stream:
            _write(stream, record, run.path, added)
            stream.flush()
            DISK.flush(stream.fileno())
    return record


def import_archive(file: Path, artifacts_root: Path, disk: Disk = DISK) -> RunDirectory:
    """Restore a run from an archive as `restore_archive` does; raises MODEL_LOAD_FAILED if the run fails its check."""
    return restore_archive(file, artifacts_root, disk, check_whole)


def _write(stream: BinaryIO, record: ArchiveRecord, folder: Path, added: Mapping[str, bytes]) -> None:
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        listed = record.model_dump_json(indent=1).encode()
        member = tarfile.TarInfo(ARCHIVE_FILE)  # a regular file without owner and time
        member.size = len(listed)
        tar.addfile(member, BytesIO(listed))
        for described in record.files:
            member = tarfile.TarInfo(described.path)
            member.size = described.bytes
            content = added.get(described.path)
            with BytesIO(content) if content else BufferedReader(open_regular(folder / described.path)) as source:
                tar.addfile(member, source)
