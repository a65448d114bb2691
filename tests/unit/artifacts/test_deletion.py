"""Deletion: what others need stays, and nothing is left of the rest."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tests.support import settings_in
from tests.support.job_kinds import KINDS
from tests.support.refusals import refused
from trainer.artifacts.deletion import TRASH, User, _move_to_trash, delete_corpus, delete_job
from trainer.artifacts.kinds import BATTERIES
from trainer.artifacts.runs import RunStore
from trainer.artifacts.stored_corpora import name_corpus
from trainer.contracts.errors import AppError, ErrorCode
from trainer.data.corpora import CorpusStore


def test_corpus__that_two_names_share_is_deleted_with_the_second(tmp_path: Path) -> None:
    settings, text = settings_in(tmp_path), tmp_path / "text.txt"
    corpora, root = CorpusStore(settings), settings.app.artifacts_root
    text.write_text("men bol\nsen bol\n", encoding="utf-8")
    sha256 = corpora.store(text)
    for name in ("one", "two"):
        name_corpus(corpora.stored, name, sha256)
    left: list[set[str]] = []
    for name in ("one", "two"):
        assert delete_corpus(corpora, root, name) == sha256
        left.append({path.name for path in corpora.stored.iterdir()})
    assert left == [{"two", sha256}, set()]


def test_corpus__that_somebody_has_sent_without_a_name_stays_for_them(tmp_path: Path) -> None:
    settings, text = settings_in(tmp_path), tmp_path / "text.txt"
    corpora, root = CorpusStore(settings), settings.app.artifacts_root
    text.write_text("men bol\nsen bol\n", encoding="utf-8")
    sha256 = corpora.store(text, "other")
    name_corpus(corpora.stored, "one", sha256)
    assert delete_corpus(corpora, root, "one") == sha256
    assert not corpora.has("one") and corpora.has(sha256) and corpora.owners(sha256) == ("other",)


def test_sent_text__goes_by_its_hash_when_all_who_have_sent_it_have_deleted_it(tmp_path: Path) -> None:
    settings, text = settings_in(tmp_path), tmp_path / "text.txt"
    corpora, root = CorpusStore(settings), settings.app.artifacts_root
    text.write_text("men bol\nsen bol\n", encoding="utf-8")
    name = corpora.store(text)
    assert corpora.owners(name) == (), "nobody has sent what the command line stores"
    for owner in (7, "key", 7):
        corpora.store(text, owner)
    assert corpora.owners(name) == (7, "key")
    assert not corpora.leave_to_others(name, lambda owner: owner == 8)
    assert not corpora.leave_to_others("0" * 64, lambda owner: owner == 7)
    assert (
        corpora.leave_to_others(name, lambda owner: owner == 7)
        and corpora.owners(name) == ("key",)
        and corpora.has(name)
    )
    assert not corpora.leave_to_others(name, lambda owner: owner == "key"), "it is the last one"
    name_corpus(corpora.stored, "one", name)
    with refused(ErrorCode.CONFLICT, "only the operator of this machine can delete it"):
        delete_corpus(corpora, root, name)
    (corpora.stored / "one").unlink()
    assert delete_corpus(corpora, root, name) == name and [*corpora.stored.iterdir()] == []
    with refused(ErrorCode.DATA_NOT_FOUND, "There is no corpus"):
        delete_corpus(corpora, root, name)


def test_text__sent_while_somebody_else_deletes_it_is_there_for_its_sender(tmp_path: Path) -> None:
    settings, text = settings_in(tmp_path), tmp_path / "text.txt"
    corpora, root = CorpusStore(settings), settings.app.artifacts_root
    text.write_text("men bol\nsen bol\n", encoding="utf-8")
    name = corpora.store(text, "one")

    def delete(owner: str) -> None:
        with suppress(AppError):  # it is deleted already
            delete_corpus(corpora, root, name, lambda: corpora.leave_to_others(name, owner.__eq__))

    with ThreadPoolExecutor(2) as threads:
        for _ in range(60):
            corpora.store(text, "one")
            deletion, sending = threads.submit(delete, "one"), threads.submit(corpora.store, text, "other")
            deletion.result()
            assert sending.result() == name and "other" in corpora.owners(name)
            delete("other")
            assert not corpora.has(name) or "one" in corpora.owners(name)


def test_file__that_somebody_needs_during_its_deletion_finds_itself_in_its_place_again(tmp_path: Path) -> None:
    nobody: list[User] = []
    file, found = (
        tmp_path / "text.txt",
        iter([nobody, [User(RunStore(tmp_path).directory("lstm-1"), is_readable=False)]]),
    )
    file.write_text("abc", encoding="utf-8")
    with refused(
        ErrorCode.CONFLICT, "The corpus 'text' stays, because others need it: the run 'lstm-1', which cannot be read."
    ):
        _move_to_trash(file, tmp_path, "The corpus 'text'", lambda: iter(next(found)))
    assert file.read_text(encoding="utf-8") == "abc" and [*(tmp_path / TRASH).iterdir()] == []


def test_job__that_a_process_still_writes_is_deleted_later(tmp_path: Path) -> None:
    job = KINDS["batteries"].create(tmp_path, 1)
    KINDS["batteries"].end(tmp_path, job.job_id)
    lock = job.lock()
    assert lock is not None
    with lock, refused(ErrorCode.SERVICE_UNAVAILABLE, "is just ending: try again in a minute."):
        delete_job(BATTERIES, tmp_path, job.job_id)
    delete_job(BATTERIES, tmp_path, job.job_id)
    assert not job.path.exists()
