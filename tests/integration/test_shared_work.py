"""Two processes share the items of a text, and give the results of one, whatever becomes of the second."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.tiny_models import SMALL, lines_in, reference
from trainer.config.presets import resolve
from trainer.config.validation import parse
from trainer.contracts.errors import AppError
from trainer.contracts.runs import TrainRequest
from trainer.contracts.tokenizers import Normalization
from trainer.data.corpus import SplitCorpus, SplitRule
from trainer.system import shared_work
from trainer.system.shared_work import all_results
from trainer.training.dataset import CorpusPaths, prepare

PARTS = [[b"a"], [], [b"", b"\0" * 3_000_000], [b"d", b"e"], [b"f"]]
"""Results of items; one is larger than a pipe."""
RULE = SplitRule(0.2, 0.1, 7)


@pytest.fixture(autouse=True)
def _share_every_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_work, "MIN_SHARED_BYTES", 0)
    monkeypatch.setattr(shared_work, "default_threads", lambda: 2)


def work_on(parts: Sequence[Sequence[bytes]], in_fork: Callable[[], object]) -> shared_work.Work:
    """Return work whose second process calls a function at its second item."""
    own = os.getpid()

    def work(first: int, step: int) -> Iterator[Sequence[bytes]]:
        for number in range(first, len(parts), step):
            if number == 3 and os.getpid() != own:
                in_fork()
            yield parts[number]

    return work


@pytest.mark.parametrize("count", range(len(PARTS) + 1))
def test_results__are_those_of_one_process(count: int) -> None:
    parts = PARTS[:count]
    assert list(all_results(work_on(parts, int), 1)) == parts


@pytest.mark.parametrize("end", [lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: 1 / 0], ids=["killed", "failed"])
def test_results__are_complete_without_the_second_process(end: Callable[[], object]) -> None:
    assert list(all_results(work_on(PARTS, end), 1)) == PARTS


def test_results__are_complete_where_no_process_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "fork", fork)
    assert list(all_results(work_on(PARTS, int), 1)) == PARTS


def test_second_process__ends_with_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    fork, started = os.fork, list[int]()

    def recorded_fork() -> int:
        started.append(fork())
        return started[-1]

    monkeypatch.setattr(os, "fork", recorded_fork)
    results = all_results(work_on(PARTS * 9, int), 1)
    next(results)
    results.close()
    [pid] = started
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_fork__writes_every_second_result_and_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second process, played by this one."""
    read_end, write_end = os.pipe()
    kept = os.dup(read_end)
    terminate = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(os, "pipe", lambda: (read_end, write_end))
    monkeypatch.setattr(os, "fork", lambda: 0)
    monkeypatch.setattr(os, "_exit", _exit)
    try:
        with pytest.raises(SystemExit):
            next(all_results(work_on(PARTS, int), 1))
    finally:
        signal.signal(signal.SIGTERM, terminate)

    with os.fdopen(kept, "rb") as stream:
        own = work_on(PARTS, int)
        assert (
            list(shared_work.alternated(lambda first, step: own(first, step) if first == 0 else iter(()), stream))
            == PARTS
        )


def _exit(code: int) -> None:
    raise SystemExit(code)


@pytest.mark.parametrize("texts", [["x\n" * 3], ["".join(f"line {n}\n\n" for n in range(90_000)), "é\n", "\n", "last"]])
def test_split__is_that_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str]) -> None:
    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")

    def splits() -> list[list[str]]:
        corpus = SplitCorpus(tmp_path, Normalization(), RULE)
        return [lines_in(corpus.lines(split)) for split in corpus.splits]

    shared = splits()
    monkeypatch.setattr(shared_work, "MIN_SHARED_BYTES", 1 << 40)
    assert shared == splits()


@pytest.mark.parametrize("method", ["char", "word", "bpe"])
def test_ids__are_those_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    words = "alpha beta gamma é 𝄞 δ".split()
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("".join(f"{' '.join(words[: 1 + n % 6])} {n % 977}\n" for n in range(60_000)), encoding="utf-8")
    paths = CorpusPaths(corpus)
    tokenizer: dict[str, object] = {"method": method} | ({"vocab_size": 80} if method == "bpe" else {})
    values = {"holdout_fraction": 0.2, "test_fraction": 0.1, "tokenizer": tokenizer, "model_family": "lstm"}
    request = parse(TrainRequest, {**SMALL, "corpus": "corpus.txt", **values})
    effective = resolve(request, corpus=reference(corpus), validation_corpus=None, test_corpus=None)

    def prepared(folder: str) -> tuple[object, ...]:
        trained, corpus = prepare(effective, paths, tmp_path / folder)
        ids = {split: array.tobytes() for split, array in corpus.ids.items()}
        return trained.names, trained.manifest.stats, trained.manifest.corpus, ids, corpus.sizes, corpus.words

    shared = prepared("shared")
    monkeypatch.setattr(shared_work, "MIN_SHARED_BYTES", 1 << 40)
    assert shared == prepared("alone")


def test_error__is_the_first_of_the_text(tmp_path: Path) -> None:
    """The second process meets one, too."""
    block = b"line\n" * 60_000
    corpus = tmp_path / "corpus.txt"
    corpus.write_bytes(block + b"\xff\n" + block + b"\xfe\n" + block)
    with pytest.raises(AppError, match=rf"byte {len(block):,}"):
        SplitCorpus(corpus, Normalization(), RULE)
