"""Archives of runs: restored to the byte on another machine, and malicious archives are refused."""

import io
import random
import shutil
import tarfile
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support import settings_in
from tests.support.run_shell import FINISHED_RUN
from tests.unit.export.test_verification import contents
from trainer.api import Model
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.contracts.base import FileRecord
from trainer.contracts.errors import AppError, ErrorCode
from trainer.export.archive import ArchiveRecord, export_archive, import_archive
from trainer.export.verification import verify_run
from trainer.system.files import Disk

Members = list[tuple[tarfile.TarInfo, bytes]]
TEXT = "abc ab a"


@pytest.fixture(name="run")
def run_fixture(tmp_path: Path) -> RunDirectory:
    """A run with checkpoints, an evaluation, a log and a seal."""
    shutil.copytree(FINISHED_RUN, tmp_path / "here")
    [run] = RunStore(tmp_path / "here" / "artifacts").all()
    run.write_seal()
    return run


@pytest.fixture(name="archive")
def archive_fixture(run: RunDirectory, tmp_path: Path) -> Path:
    export_archive(run, tmp_path / "run.tar")
    return tmp_path / "run.tar"


def test_archive__restores_a_run_that_verifies_and_scores_identically(
    run: RunDirectory, archive: Path, tmp_path: Path
) -> None:
    shutil.copytree(FINISHED_RUN / "data", tmp_path / "there" / "data")
    restored = import_archive(archive, tmp_path / "there" / "artifacts")
    assert verify_run(restored, settings_in(tmp_path / "there")).ok
    left_behind = {run.path / "logs.jsonl"}
    before = {path.relative_to(run.path): data for path, data in contents(run.path).items() if path not in left_behind}
    assert {path.relative_to(restored.path): data for path, data in contents(restored.path).items()} == before
    assert Model.load(restored.path).surprisal(TEXT) == Model.load(run.path).surprisal(TEXT)
    assert [found.run_id for found in RunStore(tmp_path / "there" / "artifacts").all()] == [run.run_id]
    assert sorted(path.name for path in (tmp_path / "there" / "artifacts").iterdir()) == ["models"]


def test_archive__is_equal_for_equal_runs(run: RunDirectory, archive: Path, tmp_path: Path) -> None:
    for path in run.path.rglob("*"):
        path.touch()
    export_archive(run, tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == archive.read_bytes()
    with tarfile.open(archive) as tar:
        assert {(member.mtime, member.uid, member.uname) for member in tar} == {(0, 0, "")}


def test_archive__is_made_of_whole_runs_only_and_overwrites_nothing(run: RunDirectory, archive: Path) -> None:
    with pytest.raises(AppError) as caught:
        export_archive(run, archive)
    assert caught.value.code is ErrorCode.CONFLICT
    before = archive.read_bytes()
    archive.write_bytes(b"older")
    export_archive(run, archive, force=True)
    assert archive.read_bytes() == before

    with pytest.raises(OSError):
        export_archive(run, archive / "below")
    export_archive(run, archive.parent / "here" / "new" / "run.tar")
    (run.path / "eval" / "samples.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(AppError, match=r"failed its check of eval/samples\.jsonl") as caught:
        export_archive(run, archive.with_name("other.tar"))
    assert caught.value.code is ErrorCode.MODEL_LOAD_FAILED
    assert sorted(path.name for path in archive.parent.iterdir()) == ["here", "run.tar"]


def test_import__of_a_run_that_is_there_is_refused(run: RunDirectory, archive: Path, tmp_path: Path) -> None:
    with pytest.raises(AppError, match="already exists") as caught:
        import_archive(archive, tmp_path / "here" / "artifacts")
    assert caught.value.code is ErrorCode.CONFLICT

    class Racing(Disk):
        """Another one restores the same run a moment earlier."""

        def rename(self, source: Path, target: Path) -> None:
            target.mkdir()
            (target / "request.json").touch()
            super().rename(source, target)

    with pytest.raises(AppError, match="already exists"):
        import_archive(archive, tmp_path / "there", Racing())

    class Failing(Disk):
        def rename(self, source: Path, target: Path) -> None:
            raise PermissionError

    with pytest.raises(PermissionError):
        import_archive(archive, tmp_path / "third", Failing())
    assert list((tmp_path / "third").rglob("*.json")) == []


def test_import__says_what_is_no_archive(archive: Path, tmp_path: Path) -> None:
    text, link = tmp_path / "text", tmp_path / "link"
    text.write_text("no archive", encoding="utf-8")
    link.symlink_to(archive)
    assert refused(tmp_path / "none", tmp_path) == f"There is no file '{tmp_path / 'none'}'."
    assert refused(link, tmp_path) == f"'{link}' is no regular file."
    assert refused(tmp_path, tmp_path) == f"'{tmp_path}' is no regular file."
    assert refused(text, tmp_path) == "The archive is refused: it is incomplete or was changed."
    assert refused(packed(tmp_path, []), tmp_path) == "Not a recognized export format."
    assert refused(packed(tmp_path, [plain("other.json", b"{}")]), tmp_path) == "Not a recognized export format."
    assert "format" in refused(packed(tmp_path, [plain("archive.json", b'{"format": "zip"}')]), tmp_path)


def changed_name(members: Members, name: str) -> Members:
    """The first file after the record has another name, there and in the record."""
    record = ArchiveRecord.model_validate_json(members[0][1])
    described = record.files[0].model_copy(update=dict[str, object](path=name))
    members[1][0].name = name
    return [recorded(record, [described, *record.files[1:]]), *members[1:]]


def recorded(record: ArchiveRecord, files: Sequence[object]) -> tuple[tarfile.TarInfo, bytes]:
    renewed = record.model_copy(update=dict[str, object](files=tuple(files)))
    return plain("archive.json", renewed.model_dump_json().encode())


def plain(name: str, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    return member, data


def of_another(members: Members, run_id: str) -> Members:
    record = ArchiveRecord.model_validate_json(members[0][1])
    renamed = record.model_copy(update=dict[str, object](run_id=run_id))
    return [plain("archive.json", renamed.model_dump_json().encode()), *members[1:]]


def of_type(members: Members, kind: bytes, target: str = "") -> Members:
    """The last member is a link or the like."""
    member = members[-1][0]
    member.type, member.linkname, member.size = kind, target, 0
    return [*members[:-1], (member, b"")]


def promised(members: Members, more: int) -> Members:
    record = ArchiveRecord.model_validate_json(members[0][1])
    larger = record.files[0].model_copy(update=dict[str, object](bytes=record.files[0].bytes + more))
    return [recorded(record, [larger, *record.files[1:]]), *members[1:]]


def unfit_request(members: Members) -> Members:
    """Another request in the place of the run's, which everything but the seal vouches for."""
    place = next(i for i, (member, _) in enumerate(members) if member.name == "request.json")
    data = members[place][1].replace(b'"user_id": null', b'"user_id": 1234')
    changed = [*members[:place], plain("request.json", data), *members[place + 1 :]]
    return rerecorded(changed)


def with_more(members: Members) -> Members:
    return rerecorded([*members, plain("cancel", b"")])


def rerecorded(members: Members) -> Members:
    record = ArchiveRecord.model_validate_json(members[0][1])
    files = [FileRecord(path=m.name, bytes=len(data), sha256=sha256(data).hexdigest()) for m, data in members[1:]]
    return [recorded(record, files), *members[1:]]


EVIL: dict[str, tuple[Callable[[Members], Members], str]] = {
    "parent": (lambda m: changed_name(m, "../../evil"), "it names a file twice, or one outside its run"),
    "absolute": (lambda m: changed_name(m, "/tmp/evil"), "it names a file twice, or one outside its run"),  # noqa: S108
    "hidden": (lambda m: changed_name(m, ".evil"), "it names a file twice, or one outside its run"),
    "twice": (lambda m: changed_name(m, "model.safetensors"), "it names a file twice, or one outside its run"),
    "beside": (lambda m: changed_name(m, "request.json/x"), "it names a file twice, or one outside its run"),
    "long": (lambda m: changed_name(m, "x" * 300), "it names a file twice, or one outside its run"),
    "renamed": (lambda m: of_another(m, "another-run"), "its run has another id"),
    "symlink": (lambda m: of_type(m, tarfile.SYMTYPE, "/etc/passwd"), "it contains a link or another special file"),
    "hard link": (lambda m: of_type(m, tarfile.LNKTYPE, "../evil"), "it contains a link or another special file"),
    "device": (lambda m: of_type(m, tarfile.CHRTYPE), "it contains a link or another special file"),
    "folder": (lambda m: of_type(m, tarfile.DIRTYPE), "it contains a link or another special file"),
    "bomb": (lambda m: promised(m, 1 << 40), "it is smaller than its record says"),
    "longer": (lambda m: promised(m, 1), "it contains a file that its record does not name"),
    "unnamed": (lambda m: [*m, plain("evil", b"x")], "it contains a file that its record does not name"),
    "repeated": (lambda m: [*m, m[-1]], "it contains a file that its record does not name"),
    "missing": (lambda m: m[:-1], "it is incomplete: files of its record are missing"),
    "exchanged": (lambda m: [*m[:-1], (m[-1][0], b"?" * len(m[-1][1]))], "it is incomplete or was changed"),
    "more": (with_more, "it contains files that do not belong to a run"),
}


@pytest.mark.parametrize("name", EVIL)
def test_evil_archive__is_refused_in_one_sentence_and_leaves_nothing(archive: Path, tmp_path: Path, name: str) -> None:
    change, why = EVIL[name]
    before = {path for path in tmp_path.rglob("*") if path.name != "evil.tar"}
    assert refused(packed(tmp_path, change(unpacked(archive))), tmp_path) == f"The archive is refused: {why}."
    left = {path for path in tmp_path.rglob("*") if path.is_file() and path.name != "evil.tar"}
    assert left <= before


def test_evil_archive__whose_parts_contradict_each_other_is_refused(archive: Path, tmp_path: Path) -> None:
    message = refused(packed(tmp_path, unfit_request(unpacked(archive))), tmp_path)
    assert "failed its check of request.json" in message


def test_archive_whose_request_cannot_be_read__is_refused(archive: Path, tmp_path: Path) -> None:
    members = [plain(m.name, b"{}") if m.name == "request.json" else (m, data) for m, data in unpacked(archive)]
    assert "failed its check of records" in refused(packed(tmp_path, rerecorded(members)), tmp_path)


def test_torn_and_flipped_archives__are_refused_or_restore_the_same(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    draw = random.Random(3)
    evil = tmp_path / "evil.tar"
    for cut in (1, 511, 512, 1024, *(draw.randrange(len(whole)) for _ in range(4))):
        evil.write_bytes(whole[:cut])
        refused(evil, tmp_path)
    expected = contents(import_archive(archive, tmp_path / "first").path).values()
    for number, place in enumerate((0, 100, 124, 148, 156, 257, *(draw.randrange(len(whole)) for _ in range(14)))):
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        evil.write_bytes(changed)
        try:
            restored = import_archive(evil, tmp_path / f"there{number}")
        except AppError:
            continue
        assert sorted(contents(restored.path).values()) == sorted(expected), place


def test_archive_of_headers_about_headers__is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("header")
    header.type, header.size = tarfile.XHDTYPE, 512
    (tmp_path / "evil.tar").write_bytes((header.tobuf() + b"11 path=aa\n".ljust(512, b"\0")) * 3000)
    assert refused(tmp_path / "evil.tar", tmp_path) == "The archive is refused: it is incomplete or was changed."


def unpacked(archive: Path) -> Members:
    with tarfile.open(archive) as tar:
        return [(member, content.read()) for member in tar if (content := tar.extractfile(member)) is not None]


def packed(folder: Path, members: Members) -> Path:
    path = folder / "evil.tar"
    with tarfile.open(path, "w") as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))
    return path


def refused(archive: Path, folder: Path) -> str:
    with pytest.raises(AppError) as caught:
        import_archive(archive, folder / "refusing")
    assert list((folder / "refusing").glob("**/*.json")) == []
    return caught.value.message
