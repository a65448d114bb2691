"""A folder in the object store has one writer, and each copy of it is a state that its writer has stored."""

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from hashlib import sha256
from io import FileIO
from itertools import count
from pathlib import Path
from random import Random
from typing import BinaryIO, Literal
from urllib.parse import urlsplit

import pytest
from arq import Retry
from hypothesis import strategies
from hypothesis.strategies import SearchStrategy

from bot.messages.job_cards import job_card
from tests.support import environment_in
from tests.support.http import site, with_api
from tests.support.job_kinds import KINDS
from tests.support.object_stores import (
    RUN,
    Bucket,
    accepted,
    bucket_fixture,
    machine,
    replica,
    s3_server,
    server_fixture,
)
from tests.support.properties import for_all
from tests.support.redis_servers import embedded
from tests.support.refusals import refused
from tests.support.reverse_proxy import reverse_proxy
from tests.support.studies import study_record
from tests.support.waiting import captured_logs, until
from trainer.artifacts.artifacts_id import own_artifacts_id
from trainer.artifacts.kinds import STATUS_KINDS
from trainer.artifacts.object_store import ObjectStore
from trainer.artifacts.replicas import Head, Replica, StoredFile, WriterChanged, join_store, unstored
from trainer.artifacts.replication import Replication, full_run_id, stored_check
from trainer.artifacts.runs import RunDirectory, RunStore, cancel_idle_run
from trainer.artifacts.stored_corpora import fetch_corpus, fetch_named_corpus, store_corpus
from trainer.artifacts.studies import StudyStore
from trainer.config.settings import ObjectStoreSettings
from trainer.contracts.base import changed
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.operations import JOB_ROWS
from trainer.contracts.runs import CorpusRef
from trainer.data.corpora import CorpusStore
from trainer.data.text import corpus_sha256
from trainer.lab.calls import JOB_CALLS
from trainer.queue.queue import JobQueue
from trainer.services.embedded import Services
from trainer.services.health import Finding, check_data
from trainer.system.files import open_regular, try_lock
from trainer.worker.jobs import Jobs
from trainer.worker.steps import Steps

__all__ = ["bucket_fixture", "server_fixture"]

HEAD = f"open/models/{RUN}"


def content(folder: Path) -> dict[str, bytes]:
    """The files that machines share, by their path in a folder."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name not in ("lock", ".head.json")}


def end(run: RunDirectory) -> None:
    assert cancel_idle_run(run)


def published(bucket: Bucket, root: Path, run_id: str = RUN) -> tuple[RunDirectory, Replica]:
    run, writer = accepted(root, run_id), replica(bucket, root, run_id)
    writer.publish()
    return run, writer


def claimed(bucket: Bucket, root: Path) -> tuple[RunDirectory, Replica]:
    run, writer = published(bucket, root)
    writer.claim()
    return run, writer


def pulled(bucket: Bucket, root: Path) -> Replica:
    reader = replica(bucket, root)
    reader.pull()
    return reader


def test_run__moves_between_machines_with_all_of_its_files(tmp_path: Path, bucket: Bucket) -> None:
    here, there = tmp_path / "a", tmp_path / "b"
    run, step, name = accepted(here), Path("checkpoints/step-5"), "checkpoints/step-5/weights.safetensors"
    weights = Random(0).randbytes(20 << 20)  # of several parts
    (run.path / step).mkdir(parents=True)
    (run.path / name).write_bytes(weights)
    replica(bucket, here).publish()
    other = pulled(bucket, there)
    light = content(other.path)
    other.claim()
    assert content(other.path) == light | {name: weights} != light
    (other.path / name).unlink()
    (other.path / step).rmdir()
    (other.path / "loss_curve.jsonl").write_bytes(b"{}\n")
    assert (other.push(), other.push()) == (True, False)
    replica(bucket, here).pull(with_weights=True)
    assert content(run.path) == content(other.path)
    assert not run.checkpoints.exists()


def test_claim__is_refused_while_a_process_of_the_machine_writes(tmp_path: Path, bucket: Bucket) -> None:
    run, _ = claimed(bucket, tmp_path / "a")
    replica(bucket, tmp_path / "b").claim()
    with run.wait_for_lock(1):
        with pytest.raises(WriterChanged):
            replica(bucket, tmp_path / "a").claim()
        before = content(run.path)
        assert content(pulled(bucket, tmp_path / "a").path) == before


def test_ended_run__leaves_the_open_ones_and_takes_later_evaluations(tmp_path: Path, bucket: Bucket) -> None:
    here, there = tmp_path / "a", tmp_path / "b"
    run, writer = published(bucket, here)
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
    assert content(pulled(bucket, here).path) == content(other.path)
    assert bucket.objects.tags("open/") == {}
    other.delete()
    assert bucket.objects.tags("files/") == {}
    for act in (other.pull, other.claim):
        with pytest.raises(AppError, match="has no 'char_lstm-1'"):
            act()


def test_end_of_a_killed_writer__is_completed_by_the_next_reader(tmp_path: Path, bucket: Bucket) -> None:
    run = accepted(tmp_path / "a")
    end(run)
    replica(bucket, tmp_path / "a").publish()
    ended = bucket.objects.get(f"ended/models/{RUN}")
    assert ended is not None
    bucket.objects.put(HEAD, ended.data)
    assert content(pulled(bucket, tmp_path / "b").path) == content(run.path)
    assert bucket.objects.tags("open/") == {}


def test_growing_file__is_stored_again_under_its_key_until_it_is_cut(tmp_path: Path, bucket: Bucket) -> None:
    run, writer = published(bucket, tmp_path)
    keys: list[set[str]] = []
    for curve in (b"1\n", b"1\n2\n", b"1\n", b"1\n3\n"):
        run.loss_curve.write_bytes(curve)
        writer.push()
        keys.append({file.key for file in stored_head(bucket).files if file.path == "loss_curve.jsonl"})
        assert (pulled(bucket, tmp_path / "b").path / "loss_curve.jsonl").read_bytes() == curve
    assert keys[0] == keys[1] != keys[2]


async def test_end_of_a_run__is_stored_after_the_work_at_its_end(tmp_path: Path, bucket: Bucket) -> None:
    """Else other machines would look for its tokenizer before the writer has stored it, and not again."""
    settings = machine(tmp_path, bucket)
    run, writer = published(bucket, settings.app.artifacts_root)
    cancel = run.path / "cancel"

    async def work() -> None:
        end(run)
        writer.request_cancel()
        for _ in range(2):  # the second time, the folder has been looked at after its end
            await until(cancel.exists)
            cancel.unlink()
        assert list(bucket.objects.tags("open/")) == [HEAD] and not stored_head(bucket).has_ended

    await Replication(settings).write("models", RUN, work)
    assert list(bucket.objects.tags("ended/")) == [f"ended/models/{RUN}"]


def stored_head(bucket: Bucket, run_id: str = RUN, state: str = "open") -> Head:
    stored = bucket.objects.get(f"{state}/models/{run_id}")
    assert stored is not None
    return Head.model_validate_json(stored.data)


@contextmanager
def damaged(bucket: Bucket, run_id: str) -> Iterator[None]:
    """Damage all stored files of a folder during the block."""
    whole = {key: bucket.objects.get(key) for key in bucket.objects.tags(f"files/models/{run_id}/")}
    for key in whole:
        bucket.objects.put(key, b"damaged, but long enough for any of the files" * 100)
    yield
    for key, stored in whole.items():
        assert stored is not None
        bucket.objects.put(key, stored.data)


def test_damaged_object__is_refused_and_the_file_on_disk_stays(tmp_path: Path, bucket: Bucket) -> None:
    run = accepted(tmp_path / "a")
    run.loss_curve.write_bytes(b"1\n")
    replica(bucket, tmp_path / "a").publish()
    reader = pulled(bucket, tmp_path / "b")
    run.loss_curve.write_bytes(b"1\n2\n")
    replica(bucket, tmp_path / "a").push()
    with damaged(bucket, RUN), refused(ErrorCode.SERVICE_UNAVAILABLE, "damaged or changes all the time"):
        reader.pull()
    assert (reader.path / "loss_curve.jsonl").read_bytes() == b"1\n"


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a/../../b", ".head.json", "a//b", "", "a\0b"])
def test_head_with_a_path_outside_of_the_folder__is_refused(path: str) -> None:
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


async def test_corpora__are_stored_once_found_by_content_and_by_name_and_deleted(
    tmp_path: Path, bucket: Bucket
) -> None:
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
    store_corpus(bucket.objects, CorpusRef(name="another", sha256=corpus_sha256(file), bytes=1), file)
    replication = Replication(machine(tmp_path, bucket))
    await replication.delete_corpus("of/a name", corpus_sha256(file))
    for name in ("of/a name", "another"):
        fetch_named_corpus(bucket.objects, name, tmp_path / "new")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"another", corpus_sha256(file)}
    for path, name in ((file, "another"), (folder, "of/a name")):
        await replication.delete_corpus(name, corpus_sha256(path))
    assert bucket.objects.tags("corpora/") == {}


async def test_text_of_a_run_without_a_stored_parent__is_fetched_alone(tmp_path: Path, bucket: Bucket) -> None:
    file = tmp_path / "text.txt"
    file.write_text("abc\n", encoding="utf-8")
    corpus = CorpusRef(name="text", sha256=corpus_sha256(file), bytes=4)
    store_corpus(bucket.objects, corpus, file)
    settings = machine(tmp_path / "a", bucket)
    effective = changed(accepted(tmp_path / "b").record().effective, corpus=corpus, init_from_run_id="lstm-gone")
    await Replication(settings).fetch_read_text(effective)
    assert [path.name for path in CorpusStore(settings).stored.iterdir()] == [corpus.sha256]


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


def test_store_that_does_not_answer__is_one_sentence(tmp_path: Path) -> None:
    with s3_server() as server:
        bucket = server.bucket()
        accepted(tmp_path)
    one = replica(bucket, tmp_path)
    for call in (one.publish, one.pull, one.claim, one.is_stored, one.delete, one.request_cancel):
        with refused(ErrorCode.SERVICE_UNAVAILABLE, "object store of `OBJECT_STORE__URL` does not answer"):
            call()
    assert unstored(tmp_path, "models") == [RUN]


@pytest.mark.parametrize(
    ("drops", "refused_header"),
    [
        (("If-None-Match", "If-Match"), None),
        (("If-None-Match",), None),
        (("If-Match",), None),
        ((), "If-None-Match"),
        ((), "If-Match"),
    ],
)
async def test_store_without_conditional_writes__is_refused_at_the_start_and_by_doctor(
    tmp_path: Path, bucket: Bucket, drops: tuple[str, ...], refused_header: str | None
) -> None:
    said = "ignores the headers If-None-Match and If-Match"
    async with reverse_proxy(bucket.address, drops=drops) as proxy, embedded(tmp_path) as (settings, _, _):
        proxy.refused_header = refused_header
        behind = changed(settings, object_store=bucket.behind(proxy.url))
        with refused(ErrorCode.CONFIG_INVALID, said):
            await Replication(behind).check()
        with refused(ErrorCode.CONFIG_INVALID, said):
            async with site(with_api(behind)):
                pass
        found = (await check_data(behind))["object store"]
        assert found.state == "failure" and said in found.message
    assert await asyncio.to_thread(bucket.objects.tags, "probes/") == {}


ANSWERS = {
    (403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large."): (
        "(RequestTimeTooSkewed: The difference between the request time and the current time is too large): set the"
        " clock of this machine, which differs from that of the store."
    ),
    (403, "SignatureDoesNotMatch", ""): "(SignatureDoesNotMatch): correct `OBJECT_STORE__SECRET_ACCESS_KEY`.",
    (403, "InvalidAccessKeyId", ""): "(InvalidAccessKeyId): correct `OBJECT_STORE__ACCESS_KEY_ID`, or renew the key.",
    (403, "AccessDenied", "User: arn:aws:iam::123456789012:user/ann may not do this"): (
        "(AccessDenied): let its key read, write, list and delete objects in the bucket."
    ),
    (403, "QuotaExceeded", "Full"): "(QuotaExceeded: Full): free some space there, or raise the quota.",
    (400, "AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong; expecting 'eu-west-1'"): (
        "(AuthorizationHeaderMalformed: the region 'us-east-1' is wrong; expecting 'eu-west-1'): set"
        " `OBJECT_STORE__REGION` and `OBJECT_STORE__ENDPOINT` to those of the bucket."
    ),
    (301, "PermanentRedirect", ""): (
        "(PermanentRedirect): set `OBJECT_STORE__REGION` and `OBJECT_STORE__ENDPOINT` to those of the bucket."
    ),
    (503, "SlowDown", "Reduce your request rate."): "(SlowDown: Reduce your request rate): try again in a minute.",
    (502, "", ""): "(HTTP 502 Bad Gateway): try again in a minute.",
    (403, "", ""): (
        "(HTTP 403 Forbidden): check its key and the clock of this machine, and let its key read, write, list and"
        " delete objects in the bucket."
    ),
    (404, "", ""): "(HTTP 404 Not Found): correct `OBJECT_STORE__ENDPOINT`, where no S3 answers.",
    (400, "InvalidBucketName", ""): (
        "(InvalidBucketName): correct the settings of `OBJECT_STORE__`, or ask whoever runs the store."
    ),
    (404, "NoSuchBucket", "The specified bucket does not exist"): (
        "There is no bucket '{bucket}' (`OBJECT_STORE__URL`): create it, or correct its name."
    ),
}
"""What the store answers with, by status, code and message, and the end of the sentence of each command."""


async def test_refusal_of_the_store__is_its_own_code_and_a_remedy_everywhere(tmp_path: Path, bucket: Bucket) -> None:
    async with reverse_proxy(bucket.address) as proxy, embedded(tmp_path) as (settings, _, store):
        behind = changed(settings, object_store=bucket.behind(proxy.url))
        starting = changed(behind, queue=changed(settings.queue, embedded_workers=1))
        run = accepted(settings.app.artifacts_root)
        worker, queue = Jobs(JobQueue(behind, store), behind, store).functions()["train"], JobQueue(settings, store)
        for (status, code, message), end in ANSWERS.items():
            proxy.refused_header, proxy.refusal = "Authorization", (status, code, message)
            said = end.format(bucket=urlsplit(bucket.settings.url).netloc)
            if said.startswith("("):
                said = f"The object store of `OBJECT_STORE__URL` refuses a request {said}"
            with refused(ErrorCode.SERVICE_UNAVAILABLE, said):
                await Services(starting).start()
            assert (await check_data(behind))["object store"] == Finding("failure", said)
            if (status, code) == (404, ""):
                continue  # there may be no such object
            with pytest.raises(Retry), captured_logs() as logs:
                await worker({}, {"job_id": run.run_id})
            reasons = {line["event"]: line["reason"] for line in logs}
            shown = ": ".join(part for part in (code, message.rstrip(".")) if part) if "arn" not in message else code
            assert reasons["job_postponed"] == said
            if code != "PermanentRedirect":
                assert str(reasons["object_store_failed"]) == shown or not code
            found = await queue.states.with_wait(await queue.states.status(run.run_id))
            assert (found.status, found.waits_for, found.message) == ("queued", "object_store", said)
        proxy.refused_header = None
        await Replication(behind).check()


async def test_refusal_of_the_store__is_in_the_status_of_every_kind_of_job(tmp_path: Path, bucket: Bucket) -> None:
    said = "The object store of `OBJECT_STORE__URL` refuses a request (QuotaExceeded: Full): free some space there,"
    async with reverse_proxy(bucket.address) as proxy, embedded(tmp_path) as (settings, _, store):
        behind, root = changed(settings, object_store=bucket.behind(proxy.url)), settings.app.artifacts_root
        proxy.refused_header, proxy.refusal = "Authorization", (403, "QuotaExceeded", "Full")
        functions = Jobs(JobQueue(behind, store), behind, store).functions()
        async with site(with_api(settings)) as here:
            for kind in STATUS_KINDS.values():
                job, row = KINDS[kind.name].create(root, 1), JOB_ROWS[kind.name]
                address = f"/{kind.name}/{job.job_id}"
                assert (await here.get(address)).fields["wait_message"] is None
                with pytest.raises(Retry):
                    await functions[kind.function]({}, {"job_id": job.job_id})
                answer = await here.get(address)
                assert answer.fields["status"] == "queued"
                assert str(answer.fields["wait_message"]).startswith(said)
                status = answer.record(JOB_CALLS[kind.name].get.answer)
                assert (status.wait_message or said) in (job_card(row, status).description or "").replace("\\", "")
            show = (sys.executable, "-m", "trainer", "job", "show", "corpus_builds", "build-1")
            mt = await asyncio.create_subprocess_exec(*show, env=environment_in(tmp_path), stderr=PIPE, stdout=DEVNULL)
            _, noted = await mt.communicate()
            assert (mt.returncode, noted.decode().startswith(f"mt: {said}")) == (0, True)


async def test_refusal_of_the_store_between_the_steps_of_a_job__is_in_its_status(tmp_path: Path) -> None:
    async with embedded(tmp_path) as (settings, queue, store):
        study = StudyStore(settings.app.artifacts_root).create(study_record("rates-1"))

        async def refuse() -> None:
            raise AppError(ErrorCode.SERVICE_UNAVAILABLE, "Full.")

        with pytest.raises(Retry):
            await Steps(study, queue, settings, store).run(refuse)
        assert (study.state(), await queue.states.wait_message(study.job_id)) == ("queued", "Full.")


async def test_store_with_conditional_writes__is_accepted(tmp_path: Path, bucket: Bucket) -> None:
    settings = machine(tmp_path, bucket)
    await Replication(settings).check()
    assert (await check_data(settings))["object store"].state == "ok"
    assert await asyncio.to_thread(bucket.objects.tags, "probes/") == {}


Call = Literal["put", "put_new", "replace", "download"]
CONDITIONAL: tuple[Call, ...] = ("put_new", "replace")


class ShortlyBefore(ObjectStore):
    """The store of a machine; something happens right before each of some calls."""

    def __init__(self, bucket: Bucket, act: Callable[[], None], *calls: Call) -> None:
        super().__init__(bucket.settings)
        self._act, self._calls = act, calls

    def _before(self, call: Call) -> None:
        if call in self._calls:
            self._act()

    def put(self, key: str, data: bytes | BinaryIO) -> None:
        self._before("put")
        super().put(key, data)

    def put_new(self, key: str, data: bytes) -> str | None:
        self._before("put_new")
        return super().put_new(key, data)

    def replace(self, key: str, data: bytes, etag: str) -> str | None:
        self._before("replace")
        return super().replace(key, data, etag)

    def download(self, key: str, target: BinaryIO, most_bytes: int) -> None:
        self._before("download")
        super().download(key, target, most_bytes)


class LostAnswers(ObjectStore):
    """The store of a machine that does not get the answers to its conditional writes, and has written all the same."""

    def replace(self, key: str, data: bytes, etag: str) -> str | None:
        super().replace(key, data, etag)
        return None


def test_run_that_is_deleted_during_its_download__is_not_stored(tmp_path: Path, bucket: Bucket) -> None:
    _, first = published(bucket, tmp_path / "a")
    reader = Replica(ShortlyBefore(bucket, first.delete, "download"), tmp_path / "b", "models", RUN)
    with refused(ErrorCode.NOT_FOUND, f"The object store has no '{RUN}'"):
        reader.pull()
    assert content(reader.path) == {}


def told_end(root: Path) -> tuple[bool, bool]:
    """Whether a machine says that the run has ended, and whether it has the run's manifest."""
    run = RunStore(root).get(RUN)
    return run.follow().refresh().has_ended, run.manifest() is not None


def test_end_of_a_run__is_told_during_its_download_only_with_its_manifest(tmp_path: Path, bucket: Bucket) -> None:
    run, writer = claimed(bucket, tmp_path / "a")
    pulled(bucket, tmp_path / "b")
    end(run)
    writer.push()
    told: list[tuple[bool, bool]] = []
    watched = ShortlyBefore(bucket, lambda: told.append(told_end(tmp_path / "b")), "download")
    Replica(watched, tmp_path / "b", "models", RUN).pull()
    assert (False, False) in told
    assert (True, False) not in told
    assert told_end(tmp_path / "b") == (True, True)


def test_run_that_ends_while_it_is_stored__is_told_to_have_ended_by_the_last_push(
    tmp_path: Path, bucket: Bucket
) -> None:
    run, _ = published(bucket, tmp_path / "a")

    def end_once() -> None:
        if not run.seal.exists():
            end(run)

    writer = Replica(ShortlyBefore(bucket, end_once, "put"), tmp_path / "a", "models", RUN)
    writer.claim()
    run.samples.parent.mkdir()
    run.samples.write_bytes(b"{}\n")
    before = stored_head(bucket)
    assert not writer.push(is_last=False)
    assert told_end(tmp_path / "a") == (True, True)
    assert stored_head(bucket) == before
    pulled(bucket, tmp_path / "b")
    assert told_end(tmp_path / "b") == (False, False)
    assert writer.push()
    pulled(bucket, tmp_path / "b")
    assert told_end(tmp_path / "b") == (True, True)


def test_run_requested_during_its_first_download__is_found_after_it(tmp_path: Path, bucket: Bucket) -> None:
    first, _ = published(bucket, tmp_path / "a")
    other = replica(bucket, tmp_path / "b")

    def ask() -> None:
        with refused(ErrorCode.SERVICE_UNAVAILABLE, f"This machine is downloading '{RUN}'"):
            other.pull()

    Replica(ShortlyBefore(bucket, ask, "download"), tmp_path / "b", "models", RUN).pull()
    other.pull()
    assert content(other.path) == content(first.path)


def test_run_that_another_process_downloads__hinders_no_name_of_others(tmp_path: Path, bucket: Bucket) -> None:
    for run_id in (RUN, "gpt2-1"):
        published(bucket, tmp_path / "a", run_id)
    here = machine(tmp_path / "b", bucket)
    being_downloaded = here.app.artifacts_root / "models" / RUN
    being_downloaded.mkdir(parents=True)
    lock = try_lock(being_downloaded / "lock")
    assert lock is not None
    with lock:
        assert full_run_id(here, "gpt2") == "gpt2-1"
        with refused(ErrorCode.SERVICE_UNAVAILABLE, f"This machine is downloading '{RUN}'"):
            full_run_id(here, RUN)
    assert full_run_id(here, RUN) == RUN


def test_folder_that_changes_during_a_push__is_stored_consistently_or_refused(
    tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that vanishes is left out; one more at each look is too many."""
    run, writer = claimed(bucket, tmp_path)
    run.checkpoints.mkdir()
    for name in ("old.pt", "new.pt"):
        (run.checkpoints / name).write_bytes(b"w")

    def remove_and_open(path: Path) -> FileIO:
        (run.checkpoints / "old.pt").unlink(missing_ok=True)
        return open_regular(path)

    monkeypatch.setattr("trainer.artifacts.replicas.open_regular", remove_and_open)
    writer.push()
    before, numbers = stored_head(bucket), count(1)
    assert [file.path for file in before.files if file.path.endswith(".pt")] == ["checkpoints/new.pt"]
    (run.path / "new-0").write_bytes(b"0")

    def open_and_add(path: Path) -> FileIO:
        (run.path / f"new-{next(numbers)}").write_bytes(b"0")
        return open_regular(path)

    monkeypatch.setattr("trainer.artifacts.replicas.open_regular", open_and_add)
    with refused(ErrorCode.SERVICE_UNAVAILABLE, "change too fast"):
        writer.push()
    assert stored_head(bucket) == before


@pytest.mark.parametrize("is_amazon", [False, True])
def test_store_without_keys_and_address__takes_those_of_the_aws_variables(
    is_amazon: bool, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address of a bucket at Amazon has its name; here it is the last part of the path."""
    url, endpoint = bucket.environment["OBJECT_STORE__URL"], bucket.environment["OBJECT_STORE__ENDPOINT"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    if is_amazon:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"{endpoint}/{url.split('/')[2]}")
    given = {"url": url} if is_amazon else {"url": url, "endpoint": endpoint}
    ObjectStore(ObjectStoreSettings.model_validate(given)).put("greeting", b"hello")
    stored = bucket.objects.get("greeting")
    assert stored is not None and stored.data == b"hello"


def test_machine_that_loses_every_race__does_not_become_the_writer(tmp_path: Path, bucket: Bucket) -> None:
    _, first = published(bucket, tmp_path / "a")
    second = Replica(ShortlyBefore(bucket, first.claim, *CONDITIONAL), tmp_path / "b", "models", RUN)
    with pytest.raises(WriterChanged):
        second.claim()
    assert not first.push()
    assert stored_head(bucket).counter > 2


def test_run_that_two_machines_publish__belongs_to_the_first(tmp_path: Path, bucket: Bucket) -> None:
    for name in ("a", "b"):
        accepted(tmp_path / name)
    first = replica(bucket, tmp_path / "a")
    second = Replica(ShortlyBefore(bucket, first.publish, *CONDITIONAL), tmp_path / "b", "models", RUN)
    with refused(ErrorCode.SERVICE_UNAVAILABLE, "Another machine has just stored the same"):
        second.publish()
    before = stored_head(bucket)
    first.publish()
    assert stored_head(bucket) == before


def test_write_with_a_lost_answer__counts(tmp_path: Path, bucket: Bucket) -> None:
    run, _ = published(bucket, tmp_path)
    writer = Replica(LostAnswers(bucket.settings), tmp_path, "models", RUN)
    writer.claim()
    (run.path / "new.txt").write_text("new", encoding="utf-8")
    assert writer.push()
    assert "new.txt" in {file.path for file in stored_head(bucket).files}
    assert not writer.push()


def test_copy__is_complete_only_if_the_store_has_every_file_unchanged(tmp_path: Path, bucket: Bucket) -> None:
    settings = machine(tmp_path, bucket)
    run, one = published(bucket, settings.app.artifacts_root)
    is_stored = stored_check(settings)
    assert is_stored is not None
    assert not is_stored(run), "it has not ended"
    cancel_idle_run(run)
    one.push()
    assert is_stored(run)
    (run.path / "new.txt").write_text("new", encoding="utf-8")
    assert not is_stored(run), "the store does not know the file"
    (run.path / "new.txt").unlink()
    [manifest] = [file.key for file in stored_head(bucket, state="ended").files if file.path == "manifest.json"]
    bucket.objects.delete([manifest])
    assert not is_stored(run), "the store has lost the file"
    assert one.is_stored(verifies=False)


async def test_run_that_was_accepted_without_the_store__is_stored_later(tmp_path: Path, bucket: Bucket) -> None:
    settings = machine(tmp_path, bucket)
    accepted(settings.app.artifacts_root)
    replication = Replication(settings)
    await replication.refresh()
    assert bucket.objects.get(f"open/models/{RUN}") is None
    await replication.refresh(with_ended=True)
    assert stored_head(bucket).counter == 1


def test_id_that_cannot_be_a_folder__is_not_stored(tmp_path: Path, bucket: Bucket) -> None:
    with refused(ErrorCode.NOT_FOUND):
        Replica(bucket.objects, tmp_path, "models", "../models")


ROW = b'{"step": 1}\n'
LARGE = ROW * 30_000
"""More than a growing file that is stored after each change."""


def test_stored_checkpoint__comes_with_all_rows_of_a_long_curve_before_it(tmp_path: Path, bucket: Bucket) -> None:
    run, writer = claimed(bucket, tmp_path / "a")
    run.loss_curve.write_bytes(LARGE)
    writer.push()
    run.loss_curve.write_bytes(LARGE + ROW)
    (run.checkpoints / "step-5").mkdir(parents=True)
    (run.checkpoints / "step-5" / "weights.safetensors").write_bytes(b"after all these rows")
    writer.push()
    other = replica(bucket, tmp_path / "b")
    other.claim()
    assert (other.path / "checkpoints" / "step-5" / "weights.safetensors").read_bytes() == b"after all these rows"
    assert (other.path / "loss_curve.jsonl").read_bytes() == LARGE + ROW


def test_folder_that_two_threads_publish__is_stored_without_an_error(tmp_path: Path, bucket: Bucket) -> None:
    run_ids = [f"char_lstm-{number}" for number in range(8)]
    for run_id in run_ids:
        accepted(tmp_path, run_id)
    with ThreadPoolExecutor(4) as pool:
        for run_id in run_ids:
            both = [pool.submit(replica(bucket, tmp_path, run_id).publish) for _ in range(4)]
            assert [one.result() for one in both] == [None] * 4
    assert sorted(bucket.objects.tags("open/")) == [f"open/models/{run_id}" for run_id in run_ids]


async def test_damaged_folder__is_retried_and_delays_no_other_folder(tmp_path: Path, bucket: Bucket) -> None:
    root = machine(tmp_path / "a", bucket).app.artifacts_root
    run_ids = [f"char_lstm-{number}" for number in range(3)]
    (run, writer), *_ = [published(bucket, root, run_id) for run_id in run_ids]
    reader = Replication(machine(tmp_path / "b", bucket))
    with damaged(bucket, run_ids[0]):
        assert await reader.refresh() == run_ids[1:]
        assert await reader.refresh() == []
    assert [await reader.refresh() for _ in range(2)] == [[run_ids[0]], []]
    writer.claim()
    end(run)
    writer.push()
    with damaged(bucket, run_ids[0]):
        assert await reader.refresh() == []
    assert [await reader.refresh() for _ in range(2)] == [[run_ids[0]], []]


async def test_job_that_ends_during_a_refresh__is_fetched_by_the_next_one(tmp_path: Path, bucket: Bucket) -> None:
    here, there = machine(tmp_path / "a", bucket), machine(tmp_path / "b", bucket)
    replication = Replication(here)
    run, writer = claimed(bucket, there.app.artifacts_root)
    end(run)
    writer.push()
    looking = asyncio.create_task(replication.refresh())
    await asyncio.sleep(0)
    replication.watch("models", RUN)
    assert await looking == []
    assert await replication.refresh() == [RUN]
    assert await replication.refresh() == []
    assert RunStore(here.app.artifacts_root).get(RUN).seal.read_bytes() == run.seal.read_bytes()
