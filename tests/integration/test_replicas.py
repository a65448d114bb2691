"""A folder in the object store has one writer, and each copy of it is a state that its writer has stored."""

from contextlib import suppress
from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest
from hypothesis import strategies
from hypothesis.strategies import SearchStrategy

from tests.support.object_stores import (
    RUN,
    Bucket,
    accepted,
    bucket_fixture,
    replica,
    s3_server,
    server_fixture,
)
from tests.support.properties import for_all
from trainer.artifacts.artifacts_id import own_artifacts_id
from trainer.artifacts.replicas import Head, StoredFile, WriterChanged, join_store, unstored
from trainer.artifacts.runs import RunDirectory, finish_run, manifest_of
from trainer.artifacts.stored_corpora import fetch_corpus, fetch_named_corpus, store_corpus
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import CorpusRef
from trainer.data.text import corpus_sha256

__all__ = ["bucket_fixture", "server_fixture"]

HEAD = f"open/models/{RUN}"


def content(folder: Path) -> dict[str, bytes]:
    """The files that machines share, by their path in a folder."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name not in ("lock", ".head.json")}


def end(run: RunDirectory) -> None:
    with run.wait_for_lock(1), run.open_log() as events:
        finish_run(run, events, manifest_of(run.record(), "cancelled"))


def test_run__moves_between_machines_with_all_of_its_files(tmp_path: Path, bucket: Bucket) -> None:
    here, there = tmp_path / "a", tmp_path / "b"
    run = accepted(here)
    (run.checkpoints / "step-5").mkdir(parents=True)
    (run.checkpoints / "step-5" / "weights.safetensors").write_bytes(b"w" * 1000)
    replica(bucket, here).publish()
    other = replica(bucket, there)
    other.pull()
    light = content(other.path)
    other.claim()
    whole = content(other.path)
    (other.path / "checkpoints" / "step-5" / "weights.safetensors").unlink()
    (other.path / "checkpoints" / "step-5").rmdir()
    (other.path / "loss_curve.jsonl").write_bytes(b"{}\n")
    assert other.push()
    assert not other.push()
    replica(bucket, here).pull(with_weights=True)
    assert whole == light | {"checkpoints/step-5/weights.safetensors": b"w" * 1000}
    assert "checkpoints/step-5/weights.safetensors" not in light
    assert content(run.path) == content(other.path)
    assert not run.checkpoints.exists()


def test_writer_that_was_cut_off__changes_nothing_and_takes_what_is_stored(tmp_path: Path, bucket: Bucket) -> None:
    here, there = tmp_path / "a", tmp_path / "b"
    run = accepted(here)
    first = replica(bucket, here)
    first.publish()
    first.claim()
    (run.path / "loss_curve.jsonl").write_bytes(b"1\n")
    first.push()
    second = replica(bucket, there)
    second.claim()
    (second.path / "loss_curve.jsonl").write_bytes(b"1\n2 of b\n")
    second.push()
    stored = bucket.objects.get(HEAD)
    (run.path / "loss_curve.jsonl").write_bytes(b"1\n2 of a\n3\n")
    (run.path / "manifest.json").write_bytes(b"an end that nobody knows of")
    with pytest.raises(WriterChanged):
        first.push()
    with pytest.raises(WriterChanged):
        replica(bucket, here).push()
    assert bucket.objects.get(HEAD) == stored
    replica(bucket, here).pull()
    assert content(run.path) == content(second.path)


def test_writer_of_the_same_machine__goes_on_with_what_it_had_not_stored(tmp_path: Path, bucket: Bucket) -> None:
    run = accepted(tmp_path)
    killed = replica(bucket, tmp_path)
    killed.publish()
    killed.claim()
    (run.path / "loss_curve.jsonl").write_bytes(b"1\n")
    again = replica(bucket, tmp_path)
    again.claim()
    again.push()
    assert content(run.path)["loss_curve.jsonl"] == b"1\n"
    fetched = replica(bucket, tmp_path / "b")
    fetched.pull()
    assert content(fetched.path) == content(run.path)


def test_claim__of_a_folder_that_a_process_still_writes_is_refused(tmp_path: Path, bucket: Bucket) -> None:
    run = accepted(tmp_path / "a")
    replica(bucket, tmp_path / "a").publish()
    replica(bucket, tmp_path / "b").claim()
    with run.wait_for_lock(1):
        with pytest.raises(WriterChanged):
            replica(bucket, tmp_path / "a").claim()
        before = content(run.path)
        replica(bucket, tmp_path / "a").pull()
        assert content(run.path) == before


def test_ended_run__leaves_the_open_ones_and_takes_later_evaluations(tmp_path: Path, bucket: Bucket) -> None:
    here, there = tmp_path / "a", tmp_path / "b"
    run = accepted(here)
    writer = replica(bucket, here)
    writer.publish()
    writer.request_cancel()
    writer.take_cancel()
    writer.claim()
    end(run)
    assert not replica(bucket, here).is_stored()
    writer.push()
    assert bucket.objects.tags("open/") == {}
    assert list(bucket.objects.tags("ended/")) == [f"ended/models/{RUN}"]
    assert bucket.objects.tags("cancel/") == {}
    assert run.cancel_requested()
    assert replica(bucket, here).is_stored()
    other = replica(bucket, there)
    other.claim()
    (other.path / "eval").mkdir()
    (other.path / "eval" / "metrics.json").write_bytes(b"{}")
    other.push()
    replica(bucket, here).pull()
    assert content(run.path) == content(other.path)
    assert bucket.objects.tags("open/") == {}
    other.delete()
    assert bucket.objects.tags("files/") == {}
    with pytest.raises(AppError, match="has no 'char_lstm-1'"):
        other.pull()
    with pytest.raises(AppError, match="has no 'char_lstm-1'"):
        other.claim()


def test_end_whose_writer_was_killed__is_completed_by_the_next_reader(tmp_path: Path, bucket: Bucket) -> None:
    run = accepted(tmp_path / "a")
    end(run)
    replica(bucket, tmp_path / "a").publish()
    ended = bucket.objects.get(f"ended/models/{RUN}")
    assert ended is not None
    bucket.objects.put(HEAD, ended.data)
    reader = replica(bucket, tmp_path / "b")
    reader.pull()
    assert bucket.objects.tags("open/") == {}
    assert content(reader.path) == content(run.path)


def test_growing_file__is_stored_again_under_its_key_until_it_is_cut(tmp_path: Path, bucket: Bucket) -> None:
    run = accepted(tmp_path)
    writer = replica(bucket, tmp_path)
    writer.publish()
    keys: list[set[str]] = []
    for curve in (b"1\n", b"1\n2\n", b"1\n", b"1\n3\n"):
        run.loss_curve.write_bytes(curve)
        writer.push()
        keys.append({file.key for file in stored_head(bucket).files if file.path == "loss_curve.jsonl"})
        fetched = replica(bucket, tmp_path / "b")
        fetched.pull()
        assert (fetched.path / "loss_curve.jsonl").read_bytes() == curve
    assert keys[0] == keys[1] != keys[2]


def stored_head(bucket: Bucket, run_id: str = RUN) -> Head:
    stored = bucket.objects.get(f"open/models/{run_id}")
    assert stored is not None
    return Head.model_validate_json(stored.data)


def test_damaged_object__is_refused_and_the_file_on_disk_stays(tmp_path: Path, bucket: Bucket) -> None:
    run = accepted(tmp_path / "a")
    run.loss_curve.write_bytes(b"1\n")
    replica(bucket, tmp_path / "a").publish()
    reader = replica(bucket, tmp_path / "b")
    reader.pull()
    run.loss_curve.write_bytes(b"1\n2\n")
    writer = replica(bucket, tmp_path / "a")
    writer.push()
    for key in bucket.objects.tags(f"files/models/{RUN}/"):
        bucket.objects.put(key, b"damaged, but long enough for any of the files" * 100)
    with pytest.raises(AppError, match="damaged or changes all the time") as refused:
        reader.pull()
    assert refused.value.code is ErrorCode.SERVICE_UNAVAILABLE
    assert (reader.path / "loss_curve.jsonl").read_bytes() == b"1\n"


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a/../../b", ".head.json", "a//b", "", "a\0b"])
def test_head_with_a_path_outside_of_the_folder__is_refused(tmp_path: Path, bucket: Bucket, path: str) -> None:
    with pytest.raises(ValueError, match="within its folder"):
        StoredFile(path=path, bytes=1, sha256="0" * 64, key="files/models/x/1/0")


MACHINES = ("a", "b", "c")
NAMES = ("loss_curve.jsonl", "config.json", "checkpoints/step-1/weights.safetensors")
steps: SearchStrategy[list[tuple[str, str, str]]] = strategies.lists(
    strategies.tuples(
        strategies.sampled_from(MACHINES),
        strategies.sampled_from(["write", "grow", "remove", "claim", "push", "push", "pull", "restart"]),
        strategies.sampled_from(NAMES),
    ),
    max_size=14,
)


def test_any_order_of_claims_and_writes__keeps_one_writer_and_whole_states(tmp_path: Path, bucket: Bucket) -> None:
    numbers = count(1)

    @for_all(steps)
    def check(done: list[tuple[str, str, str]]) -> None:
        number = next(numbers)
        run_id = f"char_lstm-{number}"
        roots = {name: tmp_path / f"{name}{number}" for name in (*MACHINES, "last")}
        accepted(roots["a"], run_id)
        replicas = {name: replica(bucket, root, run_id) for name, root in roots.items()}
        replicas["a"].publish()
        stored, writer = content(replicas["a"].path), "a"
        for place, (name, step, file) in enumerate(done):
            one = replicas[name]
            path = one.path / file
            match step:
                case "write" | "grow":
                    path.parent.mkdir(parents=True, exist_ok=True)
                    before = path.read_bytes() if step == "grow" and path.exists() else b""
                    path.write_bytes(before + f"{name} {place}\n".encode())
                case "remove":
                    path.unlink(missing_ok=True)
                case "claim":
                    expected = content(one.path) if name == writer else stored
                    one.claim()
                    assert content(one.path) == expected
                    writer = name
                case "push" if name == writer:
                    one.push()
                    stored = content(one.path)
                case "push":
                    with suppress(WriterChanged):
                        assert not one.push()  # there was nothing to store
                case "pull":
                    expected = content(one.path) if name == writer else stored
                    one.pull(with_weights=True)
                    assert content(one.path) == expected
                case _:
                    replicas[name] = replica(bucket, roots[name], run_id)
            head = stored_head(bucket, run_id)
            assert {one.path: one.sha256 for one in head.files} == {
                name: sha256(data).hexdigest() for name, data in stored.items()
            }
            assert head.writer == own_artifacts_id(roots[writer], "machine")
        replicas["last"].pull(with_weights=True)
        assert content(replicas["last"].path) == stored

    check()


def test_corpora__are_stored_once_and_found_by_content_and_by_name(tmp_path: Path, bucket: Bucket) -> None:
    folder, file, root = tmp_path / "texts", tmp_path / "text.txt", tmp_path / "corpora"
    folder.mkdir()
    for name in ("b.txt", "a b.text", "left out.md"):
        (folder / name).write_text(name * 3, encoding="utf-8")
    file.write_text("abc\n", encoding="utf-8")
    for path in (folder, file):
        digest = corpus_sha256(path)
        reference = CorpusRef(name="of/a name", sha256=digest, bytes=1)
        store_corpus(bucket.objects, reference, path)
        written = bucket.objects.tags("corpora/")
        store_corpus(bucket.objects, reference, path)
        assert bucket.objects.tags("corpora/") == written
        for _ in range(2):
            fetch_named_corpus(bucket.objects, "of/a name", root)
            assert corpus_sha256(root / digest) == digest
            assert corpus_sha256(root / "of" / "a name") == digest
    assert [path.name for path in sorted((root / corpus_sha256(folder)).iterdir())] == ["a b.text", "b.txt"]
    fetch_corpus(bucket.objects, "0" * 64, root)
    fetch_named_corpus(bucket.objects, "unknown", root)
    assert len(list(root.iterdir())) == 3


def test_damaged_corpus__is_refused(tmp_path: Path, bucket: Bucket) -> None:
    file = tmp_path / "text.txt"
    file.write_text("abc\n", encoding="utf-8")
    digest = corpus_sha256(file)
    store_corpus(bucket.objects, CorpusRef(name="text", sha256=digest, bytes=4), file)
    [key] = bucket.objects.tags(f"corpora/{digest}/")
    bucket.objects.put(key, b"xyz\n")
    with pytest.raises(AppError, match="A corpus in the object store is damaged"):
        fetch_corpus(bucket.objects, digest, tmp_path / "corpora")
    assert [*(tmp_path / "corpora").iterdir()] == []


def test_artifacts_folders__of_a_store_have_one_id_and_others_are_refused(tmp_path: Path, bucket: Bucket) -> None:
    own = own_artifacts_id(tmp_path / "a")
    for name in ("a", "b", "a", "b"):
        join_store(bucket.objects, tmp_path / name)
        assert own_artifacts_id(tmp_path / name) == own
    other = own_artifacts_id(tmp_path / "other")
    with pytest.raises(AppError, match="belong to different installations"):
        join_store(bucket.objects, tmp_path / "other")
    assert own_artifacts_id(tmp_path / "other") == other != own


def test_store_that_does_not_answer__is_said_in_one_sentence(tmp_path: Path) -> None:
    with s3_server() as server:
        bucket = server.bucket()
        accepted(tmp_path)
    one = replica(bucket, tmp_path)
    for call in (one.publish, one.pull, one.claim, one.is_stored, one.delete, one.request_cancel):
        with pytest.raises(AppError, match="object store of `OBJECT_STORE__URL` does not answer") as refused:
            call()
        assert refused.value.code is ErrorCode.SERVICE_UNAVAILABLE
    assert unstored(tmp_path, "models") == [RUN]
