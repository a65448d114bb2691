"""Tokenizers through real processes: each ends once and right, whatever is killed, and waits for no training."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support import (
    add_corpus,
    settings_in,
    some_text,
    tiny_request,
    wait_for_status,
)
from tests.support.cleanups import contents
from tests.support.lab import Lab
from tests.support.stored_jobs import is_free
from tests.support.waiting import PATIENCE_SECONDS, until
from tests.support.worker_runs import LONG
from trainer.artifacts.kinds import TOKENIZER_QUEUE
from trainer.artifacts.tokenizers import TokenizerDirectory, TokenizerStore, resolve_tokenizer
from trainer.config.validation import parse
from trainer.contracts.errors import ErrorCode
from trainer.contracts.jobs import FolderJobPayload
from trainer.contracts.tokenizer_jobs import TokenizerAccepted, TokenizerStatus, TokenizerTrainRequest
from trainer.data.corpora import CorpusStore
from trainer.queue.queue import JobQueue
from trainer.store import keys
from trainer.tokenizers import load_tokenizer
from trainer.worker.child_process import start_child


def request(**fields: object) -> TokenizerTrainRequest:
    return parse(TokenizerTrainRequest, {"method": "char", "corpora": ["text"], **fields})


def is_in(queue: JobQueue, tokenizer_id: str, *states: str) -> bool:
    return queue.tokenizers.get(tokenizer_id).status().status in states


async def end_of(queue: JobQueue, accepted: TokenizerAccepted) -> TokenizerStatus:
    await until(partial(is_in, queue, accepted.tokenizer_id, "completed", "failed"))
    return queue.tokenizers.get(accepted.tokenizer_id).status()


@pytest.mark.slow
async def test_tokenizer__is_trained_beside_a_training_that_takes_long(lab: Lab) -> None:
    add_corpus(lab.folder, "ˈʃɑːr\nˈqɑzɑq\nqɑz ˈʃɑːr", "ipa")
    async with lab.queue() as queue:
        run_id = (await queue.train(tiny_request(**LONG), user_id=None)).run_id
        await wait_for_status(queue, run_id, lambda status: status.step > 0)
        accepted = await queue.train_tokenizer(request(corpora=["text", "ipa"], label="shared"))
        assert accepted.job_id == accepted.tokenizer_id
        status = await end_of(queue, accepted)
        assert (status.status, status.message, status.label) == ("completed", "Completed.", "shared")
        assert status.error is None
        assert (await queue.states.status(run_id)).status == "running"
        await queue.states.cancel(run_id)
        tokenizer = queue.tokenizers.get(accepted.tokenizer_id)
        await until(lambda: is_free(tokenizer))  # the worker lets it go a moment after its end
        folder = tokenizer.path
        tree = contents(folder)
        assert set(tree) == {"request.json", "tokenizer.json", "manifest.json", "logs.jsonl"}
        for text in ("abc ab", "qɑz", str(lab.folder)):
            assert text not in tree["logs.jsonl"].decode() + tree["request.json"].decode()
        assert "tokenizer_trained" in tree["logs.jsonl"].decode()
        assert load_tokenizer(folder).manifest.tokenizer_id == accepted.tokenizer_id
        again = await queue.train_tokenizer(request(corpora=["text", "ipa"], label="again", threads=1))
        assert (again.status, again.tokenizer_id) == ("completed", accepted.tokenizer_id)
        other = await queue.train_tokenizer(request(corpora=["text", "ipa"], seed=1))
        assert other.tokenizer_id != accepted.tokenizer_id
        assert (await end_of(queue, other)).status == "completed"
        payload = FolderJobPayload(job_id=accepted.tokenizer_id)
        async with lab.store() as store, asyncio.timeout(PATIENCE_SECONDS):
            await store.enqueue(TOKENIZER_QUEUE, "train_tokenizer", "told-twice", payload)
            while await store.get(keys.definition("told-twice")):
                await asyncio.sleep(0.05)
        child = await start_child("train-tokenizer", lab.settings, accepted.tokenizer_id)
        assert (await child.wait(), [*child.last_lines]) == (0, [])
        assert contents(folder) == tree


@pytest.mark.slow
async def test_threads__change_nothing_in_a_tokenizer(tmp_path: Path) -> None:
    codes: list[int] = []
    for threads in (1, 2):
        settings = settings_in(tmp_path / str(threads))
        add_corpus(tmp_path / str(threads), "\n".join(some_text(300).splitlines() * 5))
        for method in ("bpe", "sentencepiece"):
            asked = request(method=method, vocab_size=120, threads=threads)
            record = await resolve_tokenizer(asked, CorpusStore(settings))
            TokenizerStore(settings.app.artifacts_root).create(record)
            codes.append(await (await start_child("train-tokenizer", settings, record.tokenizer_id)).wait())
    assert codes == [0] * 4
    one, two = (sorted((tmp_path / threads).glob("artifacts/tokenizers/*/tokenizer.*")) for threads in "12")
    assert [path.parent.name for path in one] == [path.parent.name for path in two]
    assert len(one) == 2
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


async def test_vocabulary__is_chosen_by_the_text_and_a_given_one_wins(tmp_path: Path) -> None:
    add_corpus(tmp_path, "abcdefg\n" * 100_000)
    add_corpus(tmp_path, "hijklmn\n" * 100_000, "other")
    corpora = CorpusStore(settings_in(tmp_path))

    async def size(method: str, *names: str, **fields: object) -> int | None:
        asked = request(method=method, corpora=names, **fields)
        return (await resolve_tokenizer(asked, corpora)).request.vocab_size

    # 80 % of 800,000 characters, and a token for each 500 of them
    assert [await size(method, "text") for method in ("bpe", "sentencepiece", "char")] == [1280, 1280, None]
    assert await size("bpe", "text", "other") == 2560
    assert await size("bpe", "text", vocab_size=300) == 300


@asynccontextmanager
async def held(lab: Lab, asked: TokenizerTrainRequest) -> AsyncIterator[TokenizerDirectory]:
    """A tokenizer that waits for its training, and that no child can train in the block."""
    record = await resolve_tokenizer(asked, CorpusStore(lab.settings))
    tokenizer = TokenizerStore(lab.settings.app.artifacts_root).create(record)
    lock = tokenizer.lock()
    assert lock is not None
    with lock:
        yield tokenizer


async def test_corpus_removed_while_queued__fails_and_can_be_requested_again(lab: Lab) -> None:
    add_corpus(lab.folder, some_text(62), "removed")
    asked = request(corpora=["removed"])
    async with lab.queue() as queue:
        async with held(lab, asked):
            accepted = await queue.train_tokenizer(asked)
            (lab.folder / "data" / "corpus" / "removed.txt").unlink()
        status = await end_of(queue, accepted)
        assert status.error is not None
        assert (status.status, status.error.code) == ("failed", ErrorCode.DATA_NOT_FOUND)
        assert status.message.startswith("There is no corpus 'removed'")
        assert str(lab.folder) not in status.model_dump_json()
        add_corpus(lab.folder, some_text(62), "removed")
        again = await queue.train_tokenizer(asked)
        assert again.tokenizer_id == accepted.tokenizer_id
        assert (await end_of(queue, again)).status == "completed"


async def test_crashes__end_it_after_the_third_in_a_row(lab: Lab) -> None:
    asked = request(seed=2)
    async with lab.queue() as queue:
        async with held(lab, asked) as tokenizer:
            accepted = await queue.train_tokenizer(asked)
            (tokenizer.path / "tokenizer.json").mkdir()  # which no file can replace
        status = await end_of(queue, accepted)
    assert status.error is not None
    assert (status.status, status.error.code) == ("failed", ErrorCode.TOKENIZER_TRAIN_FAILED)
    assert "crashed 3 times" in status.message
    log = queue.tokenizers.get(accepted.tokenizer_id).logs.read_text(encoding="utf-8")
    starts = log.count('"message": "tokenizer_training_started"')
    assert starts in (3, 4), "the worker leaves a job once to those that wait behind it, which is no crash of the job"
