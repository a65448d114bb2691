"""An empty corpus, invalid UTF-8, or less than one sequence is refused, each with an error of its own."""

import asyncio
import threading
from pathlib import Path

import pytest

from tests.support import add_corpus, settings_in, tiny_request
from trainer.artifacts.runs import RunStore
from trainer.config.presets import request_hash
from trainer.contracts.base import now
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.events import JobStarted, stamp
from trainer.contracts.runs import RunManifest, RunRecord, TrainRequest
from trainer.data.corpora import CorpusStore
from trainer.queue.resolve import resolve_request
from trainer.worker.children.train_run import TrainingAttempt

LINES, LINE_TOKENS = 20, 8
TEXT = "\n".join(f"abc {number:03d}" for number in range(LINES))
TRAINED = 17 * LINE_TOKENS
"""Of 20 lines one is held out for validation and two for the test."""


def refusal(folder: Path, request: TrainRequest) -> AppError:
    settings = settings_in(folder)
    with pytest.raises(AppError) as caught:
        asyncio.run(resolve_request(request, CorpusStore(settings), settings))
    return caught.value


def ended(folder: Path, request: TrainRequest) -> RunManifest:
    """Run a training in this process and return its end."""
    settings = settings_in(folder)
    effective = asyncio.run(resolve_request(request, CorpusStore(settings), settings))
    record = RunRecord(
        run_id="short",
        user_id=None,
        created_at=now(),
        request=request,
        effective=effective,
        request_hash=request_hash(effective),
    )
    run = RunStore(settings.app.artifacts_root).create(record)
    with run.open_log() as events:
        started = JobStarted(**stamp("short", None, "started:1"), queue="training", attempt=1)
        events.append(started)
        TrainingAttempt(settings, run, events, [started], threading.Event()).run()
    manifest = run.manifest()
    assert manifest is not None
    return manifest


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", ErrorCode.CORPUS_EMPTY),
        (b"caf\xe9\n" * 99, ErrorCode.INVALID_INPUT),
        (b"a\nb\nc\n", ErrorCode.CORPUS_TOO_SHORT),
    ],
)
def test_text_that_cannot_be_trained_on__is_refused_before_it_is_queued(
    tmp_path: Path, data: bytes, code: ErrorCode
) -> None:
    add_corpus(tmp_path, "")
    (tmp_path / "data" / "corpus" / "text.txt").write_bytes(data)
    assert refusal(tmp_path, tiny_request()).code is code


@pytest.mark.parametrize(
    ("method", "tokens"), [("char", LINES * LINE_TOKENS), ("word", LINES * 3), ("sentencepiece", LINES * 9)]
)
def test_sequence__is_as_long_as_the_text_can_have_tokens_at_most(tmp_path: Path, method: str, tokens: int) -> None:
    """A character or a word each, one for the end of a line, and one for the space that SentencePiece begins with."""
    add_corpus(tmp_path, TEXT)
    settings = settings_in(tmp_path)
    family = "char_lstm" if method == "char" else "lstm"

    def request(length: int) -> TrainRequest:
        return tiny_request(model_family=family, tokenizer={"method": method}, max_seq_len=length)

    error = refusal(tmp_path, request(tokens + 1))
    assert asyncio.run(resolve_request(request(tokens), CorpusStore(settings), settings)).max_seq_len == tokens
    assert error.message == (
        f"`max_seq_len` is {tokens + 1}, but the corpus has {tokens} tokens only, less than one sequence:"
        f" make `max_seq_len` {tokens // 2} or less, or give a longer text."
    )


def test_training_split__that_is_shorter_than_one_sequence_ends_the_run_with_what_would_fit(tmp_path: Path) -> None:
    add_corpus(tmp_path, TEXT)
    manifest = ended(tmp_path, tiny_request(max_seq_len=TRAINED + 1))
    assert manifest.status == "failed" and manifest.error is not None
    assert manifest.error.code is ErrorCode.CORPUS_TOO_SHORT
    assert manifest.error.message == (
        f"`max_seq_len` is {TRAINED + 1}, but the training split has {TRAINED} tokens only, less than one sequence:"
        f" make `max_seq_len` {TRAINED} or less, or give a longer text."
    )


@pytest.mark.process
def test_training_split__of_one_sequence_is_enough(tmp_path: Path) -> None:
    add_corpus(tmp_path, TEXT)
    assert ended(tmp_path, tiny_request(max_seq_len=TRAINED, max_steps=1)).status == "completed"
