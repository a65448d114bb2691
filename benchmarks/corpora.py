"""Speed and memory of preparing a corpus, and speed of encoding compared with the libraries called directly.

The corpus is the shipped text, each line with a number. A child process prepares it for a character model and trains
some steps; another one does so with a corpus of a few lines, and the differences of their peaks are the memory above
the model. Encoding is compared in alternating slices.
"""

import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

import tokenizers
from sentencepiece import SentencePieceProcessor

from benchmarks.rows import Row
from benchmarks.turns import in_turns, repeated
from trainer.config.presets import resolve
from trainer.config.tokenizer_request import config_of
from trainer.config.validation import parse
from trainer.contracts.base import Frozen
from trainer.contracts.installation import BUNDLED_CORPORA
from trainer.contracts.runs import CorpusRef, TrainRequest
from trainer.contracts.tokenizer_jobs import TokenizerTrainRequest
from trainer.data.corpus import SplitRule, read_blocks
from trainer.data.run_corpora import CorpusPaths
from trainer.data.text import corpus_sha256
from trainer.models import build
from trainer.system.hardware import most_memory_bytes
from trainer.tokenizers import train_tokenizer
from trainer.tokenizers.base import Text, Tokenizer, vocabulary_of
from trainer.training.checkpoint import CheckpointStore
from trainer.training.dataset import prepare
from trainer.training.device import resolve as resolve_compute
from trainer.training.loop import train

MEGABYTE = 10**6
QUICK_MEGABYTES, FULL_MEGABYTES = 100, 1000
MIN_MEGABYTES_PER_SECOND, MAX_MEGABYTES = 100.0, 300.0
MIN_CHAR_RATIO, MIN_LIBRARY_RATIO = 30.0, 0.9
ROUNDS, SLICE_SECONDS, VOCABULARY = 7, 0.5, 1000
REQUEST: dict[str, object] = {
    "model_family": "char_lstm",
    "corpus": "corpus.txt",
    "model": {"embedding_size": 16, "hidden_size": 16, "num_layers": 1},
    "max_seq_len": 64,
    "batch_size": 16,
    "max_steps": 20,
    "holdout_fraction": 0.001,
    "test_fraction": 0.001,
    "device": "cpu",
}


class Measured(Frozen):
    """Figures of a child process."""

    megabytes: float
    prepare_seconds: float
    prepare_peak_bytes: int
    """Peak memory until the corpus is prepared."""
    train_peak_bytes: int


class Preparation(NamedTuple):
    """Speed of preparing a corpus, and memory above that of a run with a few lines."""

    megabytes_per_second: float
    prepare_megabytes: float
    train_megabytes: float


def measure_preparation(megabytes: int) -> Preparation:
    """Prepare a corpus of this size, and one of a few lines, each in a process of its own."""
    few, many = _measured_by_child(0), _measured_by_child(megabytes)
    return Preparation(
        many.megabytes / many.prepare_seconds,
        (many.prepare_peak_bytes - few.prepare_peak_bytes) / MEGABYTE,
        (many.train_peak_bytes - few.train_peak_bytes) / MEGABYTE,
    )


def char_ratio() -> float:
    """Return the speed of the character tokenizer relative to a loop over a dictionary."""
    tokenizer = _trained("char")
    ids = {character: str(number) for number, character in enumerate(tokenizer.names)}
    unknown = str(tokenizer.special_ids.unk)

    def encode(text: str) -> list[list[int]]:
        return [[int(ids.get(character, unknown)) for character in line] for line in text.split("\n")]

    return _ratio(tokenizer, encode)


def bpe_ratio() -> float:
    """Return the speed of the BPE tokenizer relative to `encode_batch_fast` of its library."""
    tokenizer = _trained("bpe")
    with TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        library = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
    library.normalizer = None  # the lines are normalized

    def encode(text: str) -> list[list[int]]:
        return [encoding.ids for encoding in library.encode_batch_fast(text.split("\n"), add_special_tokens=False)]

    return _ratio(tokenizer, encode)


def sentencepiece_ratio() -> float:
    """Return the speed of the SentencePiece tokenizer relative to a list of lines encoded by its library's threads."""
    tokenizer = _trained("sentencepiece")
    with TemporaryDirectory() as folder:
        tokenizer.save(Path(folder))
        processor = SentencePieceProcessor(model_file=f"{folder}/tokenizer.model")

    def encode(text: str) -> list[list[int]]:
        ids: list[list[int]] = processor.encode(text.split("\n"), out_type=int, num_threads=-1)
        return ids

    return _ratio(tokenizer, encode)


def corpus_rows(is_quick: bool) -> list[Row]:
    """Measure everything."""
    megabytes = QUICK_MEGABYTES if is_quick else FULL_MEGABYTES
    prepared = measure_preparation(megabytes)
    speed, size = prepared.megabytes_per_second, f"corpus of {megabytes} MB"
    memory = (("preparing", prepared.prepare_megabytes), ("training", prepared.train_megabytes))
    ratios = [
        ("char / dictionary", char_ratio(), MIN_CHAR_RATIO),
        ("BPE / library", bpe_ratio(), MIN_LIBRARY_RATIO),
        ("SentencePiece / library", sentencepiece_ratio(), MIN_LIBRARY_RATIO),
    ]
    return [
        Row(case=f"{size}: preparing", value=speed, unit="MB/s", goal=MIN_MEGABYTES_PER_SECOND),
        *(
            Row(case=f"{size}: memory while {work}", value=value, unit="MB", goal=MAX_MEGABYTES, better="less")
            for work, value in memory
        ),
        *(Row(case=f"encoding: {case}", value=value, unit="x", goal=goal) for case, value, goal in ratios),
    ]


def write_corpus(path: Path, size: int) -> None:
    """Write the shipped text, each line with a number, until a file has so many bytes."""
    lines = (BUNDLED_CORPORA / "demo.txt").read_text(encoding="utf-8").splitlines()
    with path.open("wb") as file:
        for number in count(1):
            file.write("".join(f"{number} {line}\n" for line in lines).encode())
            if file.tell() >= size:
                break


def measure(folder: Path) -> Measured:
    """Prepare the corpus of a folder and train some steps in this process."""
    path = folder / "corpus.txt"
    size = path.stat().st_size
    reference = CorpusRef(name=path.name, sha256=corpus_sha256(path), bytes=size)
    request = parse(TrainRequest, REQUEST)
    effective = resolve(request, corpus=reference)
    compute = resolve_compute(effective)
    begin = perf_counter()
    tokenizer, corpus = prepare(effective, CorpusPaths(path), folder / "cache")
    seconds = perf_counter() - begin
    prepare_peak_bytes = most_memory_bytes()
    model = build(effective.model, vocabulary_of(tokenizer), effective.objective)
    train(model, corpus, effective, compute, CheckpointStore(folder / "checkpoints"))
    return Measured(
        megabytes=size / MEGABYTE,
        prepare_seconds=seconds,
        prepare_peak_bytes=prepare_peak_bytes,
        train_peak_bytes=most_memory_bytes(),
    )


def _measured_by_child(megabytes: int) -> Measured:
    with TemporaryDirectory() as folder:
        write_corpus(Path(folder) / "corpus.txt", megabytes * MEGABYTE)
        command = [sys.executable, "-m", __spec__.name, folder]
        finished = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        return Measured.model_validate_json(finished.stdout)


def _trained(method: str) -> Tokenizer:
    fields: dict[str, object] = {"method": method, "corpora": ("demo",)}
    if method != "char":
        fields["vocab_size"] = VOCABULARY
    config = config_of(parse(TokenizerTrainRequest, fields))
    blocks = list(read_blocks(BUNDLED_CORPORA / "demo.txt", config.normalization))
    text = Text(CorpusRef(name="demo", sha256="0" * 64, bytes=1), lambda: blocks)
    return train_tokenizer(config, [text], blocks, rule=SplitRule(0.1, 0.0, 1))


def _ratio(tokenizer: Tokenizer, encode: Callable[[str], object]) -> float:
    """Return the speed of the tokenizer relative to that of `encode`, from the shipped text to ids of its lines."""
    [text] = read_blocks(BUNDLED_CORPORA / "demo.txt", tokenizer.normalization)

    def speed_of(encode_lines: Callable[[str], object]) -> Callable[[], float]:
        def work() -> int:
            encode_lines(text)
            return len(text)

        return lambda: repeated(work, SLICE_SECONDS)

    contestants = {"ours": speed_of(tokenizer.encode_documents), "rival": speed_of(encode)}
    in_turns(contestants, 1)  # warms up
    return in_turns(contestants, ROUNDS).ratio("ours", "rival")


if __name__ == "__main__":
    print(measure(Path(sys.argv[1])).model_dump_json())
