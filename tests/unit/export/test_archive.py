"""Archives of runs: restored to the byte on another machine, and malicious archives are refused."""

import io
import random
import shutil
import tarfile
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support import settings_in
from tests.support.refusals import refused
from tests.support.run_shell import FINISHED_RUN, contents
from trainer.api import Model
from trainer.artifacts.archives import ArchiveRecord
from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.contracts.base import FileRecord, changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import AnnotationChange
from trainer.export.archive import export_archive, import_archive
from trainer.export.verification import verify_run
from trainer.system.files import Disk

Members = list[tuple[tarfile.TarInfo, bytes]]
TEXT = "abc ab a"


@pytest.fixture(name="archive")
def archive_fixture(run: RunDirectory, tmp_path: Path) -> Path:
    RunStore(run.path.parents[1]).annotate(run, AnnotationChange(note="a pilot"))
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
    after = {path.relative_to(restored.path): data for path, data in contents(restored.path).items()}
    assert after.pop(Path("restored")) == b"" and after == before
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


def test_archive__is_written_for_unchanged_runs_only_and_overwrites_nothing(run: RunDirectory, archive: Path) -> None:
    with refused(ErrorCode.CONFLICT):
        export_archive(run, archive)
    before = archive.read_bytes()
    archive.write_bytes(b"older")
    export_archive(run, archive, force=True)
    assert archive.read_bytes() == before
    with pytest.raises(OSError):
        export_archive(run, archive / "below")
    export_archive(run, archive.parent / "new" / "run.tar")
    (run.path / "eval" / "samples.jsonl").write_text("", encoding="utf-8")
    with refused(ErrorCode.MODEL_LOAD_FAILED, "failed its check of eval/samples.jsonl"):
        export_archive(run, archive.with_name("other.tar"))
    assert sorted(path.name for path in archive.parent.iterdir()) == ["artifacts", "data", "new", "run.tar"]


def test_archive__describes_and_cites_its_model(run: RunDirectory, tmp_path: Path) -> None:
    export_archive(run, tmp_path / "new.tar", "cc0-1.0")
    passport = {member.name: content.decode() for member, content in unpacked(tmp_path / "new.tar")[-2:]}
    assert list(passport) == ["README.md", "CITATION.cff"] and "license: CC0-1.0" in passport["CITATION.cff"]
    assert f'trainer.load("{run.run_id}")' in passport["README.md"]


def test_import__of_an_existing_run_is_refused(run: RunDirectory, archive: Path, tmp_path: Path) -> None:
    with refused(ErrorCode.CONFLICT, "already exists"):
        import_archive(archive, tmp_path / "artifacts")

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
    assert refusal(tmp_path / "none", tmp_path) == f"There is no file '{tmp_path / 'none'}'."
    assert refusal(link, tmp_path) == f"'{link}' is no regular file."
    assert refusal(tmp_path, tmp_path) == f"'{tmp_path}' is no regular file."
    assert refusal(text, tmp_path) == "The archive is refused: it is incomplete or was changed."
    assert refusal(packed(tmp_path, []), tmp_path) == "Not a recognized export format."
    assert refusal(packed(tmp_path, [plain("other.json", b"{}")]), tmp_path) == "Not a recognized export format."
    assert "format" in refusal(packed(tmp_path, [plain("archive.json", b'{"format": "zip"}')]), tmp_path)


def record_of(members: Members) -> ArchiveRecord:
    return ArchiveRecord.model_validate_json(members[0][1])


def recorded(members: Members, **fields: object) -> Members:
    """The same members with another record of them."""
    return [plain("archive.json", changed(record_of(members), **fields).model_dump_json().encode()), *members[1:]]


def first_file(members: Members, **fields: object) -> Members:
    """The record says something else of the first file."""
    first, *others = record_of(members).files
    return recorded(members, files=(changed(first, **fields), *others))


def renamed(members: Members, name: str) -> Members:
    """The first file after the record has another name, there and in the record."""
    members[1][0].name = name
    return first_file(members, path=name)


def plain(name: str, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    return member, data


def of_type(members: Members, kind: bytes, target: str = "") -> Members:
    """The last member is a link or the like."""
    member = members[-1][0]
    member.type, member.linkname, member.size = kind, target, 0
    return [*members[:-1], (member, b"")]


def rerecorded(members: Members) -> Members:
    """The record vouches for all that there is."""
    files = (FileRecord(path=m.name, bytes=len(data), sha256=sha256(data).hexdigest()) for m, data in members[1:])
    return recorded(members, files=tuple(files))


def with_request(members: Members, old: bytes, new: bytes) -> Members:
    """Another request in the place of the run's, which everything but the seal vouches for."""
    return rerecorded(
        [plain(m.name, data.replace(old, new)) if m.name == "request.json" else (m, data) for m, data in members]
    )


BAD_NAMES = ("../../evil", "/tmp/evil", ".evil", "model.safetensors", "request.json/x", "x" * 300)  # noqa: S108
TYPES = ((tarfile.SYMTYPE, "/etc/passwd"), (tarfile.LNKTYPE, "../evil"), (tarfile.CHRTYPE, ""), (tarfile.DIRTYPE, ""))
EVIL: list[tuple[Callable[[Members], Members], str]] = [
    *((partial(renamed, name=name), "it names a file twice, or one outside its run") for name in BAD_NAMES),
    *((partial(of_type, kind=kind, target=target), "a link or another special file") for kind, target in TYPES),
    (lambda m: recorded(m, run_id="another-run"), "its run has another id"),
    (lambda m: first_file(m, bytes=1 << 40), "it is smaller than its record says"),
    (lambda m: first_file(m, bytes=record_of(m).files[0].bytes + 1), "a file that its record does not name"),
    (lambda m: [*m, plain("evil", b"x")], "a file that its record does not name"),
    (lambda m: [*m, m[-1]], "a file that its record does not name"),
    (lambda m: m[:-1], "files of its record are missing"),
    (lambda m: [*m[:-1], (m[-1][0], b"?" * len(m[-1][1]))], "it is incomplete or was changed"),
    (lambda m: rerecorded([*m, plain("cancel", b"")]), "files that do not belong to a run"),
    (lambda m: rerecorded([*m[:-1], plain("CITATION.cff/x", b"")]), "files that do not belong to a run"),
    (lambda m: with_request(m, b'"user_id": null', b'"user_id": 1234'), "failed its check of request.json"),
    (lambda m: with_request(m, b"{", b"["), "failed its check of records"),
]


@pytest.mark.parametrize(("change", "why"), EVIL)
def test_evil_archive__is_refused_and_leaves_nothing(
    archive: Path, tmp_path: Path, change: Callable[[Members], Members], why: str
) -> None:
    before = {path for path in tmp_path.rglob("*") if path.name != "evil.tar"}
    message = refusal(packed(tmp_path, change(unpacked(archive))), tmp_path)
    assert why in message
    left = {path for path in tmp_path.rglob("*") if path.is_file() and path.name != "evil.tar"}
    assert left <= before


def test_torn_and_flipped_archives__are_refused_or_restore_the_same(archive: Path, tmp_path: Path) -> None:
    whole, evil, draw = archive.read_bytes(), tmp_path / "evil.tar", random.Random(3)
    header = tarfile.TarInfo("header")
    header.type, header.size = tarfile.XHDTYPE, 512
    evil.write_bytes((header.tobuf() + b"11 path=aa\n".ljust(512, b"\0")) * 3000)  # headers about headers
    assert refusal(evil, tmp_path) == "The archive is refused: it is incomplete or was changed."
    for cut in (1, 511, 512, 1024, *(draw.randrange(len(whole)) for _ in range(4))):
        evil.write_bytes(whole[:cut])
        refusal(evil, tmp_path)
    expected = contents(import_archive(archive, tmp_path / "first").path).values()
    for number, place in enumerate((0, 100, 124, 148, 156, 257, *(draw.randrange(len(whole)) for _ in range(14)))):
        data = bytearray(whole)
        data[place] ^= 1 << draw.randrange(8)
        evil.write_bytes(data)
        try:
            restored = import_archive(evil, tmp_path / f"there{number}")
        except AppError:
            continue
        assert sorted(contents(restored.path).values()) == sorted(expected), place


def unpacked(archive: Path) -> Members:
    with tarfile.open(archive) as tar:
        return [(member, content.read()) for member in tar if (content := tar.extractfile(member)) is not None]


def packed(folder: Path, members: Members) -> Path:
    path = folder / "evil.tar"
    with tarfile.open(path, "w") as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))
    return path


def refusal(archive: Path, folder: Path) -> str:
    with pytest.raises(AppError) as caught:
        import_archive(archive, folder / "refusing")
    assert list((folder / "refusing").glob("**/*.json")) == []
    return caught.value.message
