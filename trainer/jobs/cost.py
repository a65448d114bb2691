"""What a training will cost, told before it is queued from a part of its text, and a refusal of what cannot fit.

No torch: the bot asks too. At most a quarter of a MiB of a text is read, so that the answer takes some milliseconds.
"""

import asyncio
import math
import shutil
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import NamedTuple

import structlog

from trainer.artifacts.runs import RunDirectory, RunStore
from trainer.artifacts.tokenizer_files import read_manifest
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.config.settings import Settings
from trainer.contracts.cost import GIB, MIB, Cost
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import EffectiveRequest, RunManifest
from trainer.contracts.tokenizers import (
    SPECIAL_NAMES,
    CharTokenizerConfig,
    SentencePieceTokenizerConfig,
    TokenizerManifest,
    WordTokenizerConfig,
    style_of,
)
from trainer.data.corpora import CorpusStore
from trainer.data.normalization import normalized
from trainer.data.text import text_files
from trainer.jobs.estimate import SURE, Machine, TextSize, estimate, step_seconds
from trainer.system.hardware import cpu_name, has_bf16, may_have_cuda, memory_bytes

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

_PIECES, _PIECE_BYTES = 8, 32 << 10
_COMPARED, _READ_MANIFESTS = 3, 24
_TOKEN_LETTERS, _TOKEN_LETTERS_LESS = 0.43, 1.8
"""Letters of a subword: 3.8 of 8,000, and so many more with each doubling."""
_TOKENS_OF_WORDS = 1.2
"""Subwords that there can be, by the kinds of words that are frequent enough: 0.8 to 2 in texts of 25 to 500 kB."""
_LEAST_SECONDS = 0.5
"""A training that took less says more of its start than of its speed."""


async def preview_cost(effective: EffectiveRequest, corpora: CorpusStore, settings: Settings) -> Cost:
    """Say what a checked request needs; raises MODEL_INCOMPATIBLE or INSUFFICIENT_STORAGE where there is less."""
    return await asyncio.to_thread(_preview, effective, corpora, settings)


class Sample(NamedTuple):
    """A part of a text."""

    text: str
    bytes: int


class Vocabulary(NamedTuple):
    """How many tokens there will be, and how many of them make up a text."""

    size: int
    least_size: int
    """Where the size is a guess, what it is at least."""
    tokens_per_byte: float


def _preview(effective: EffectiveRequest, corpora: CorpusStore, settings: Settings) -> Cost:
    sample = sample_of(corpora.find(effective.corpus.name))
    stored = _stored_tokenizer(effective, settings)
    vocabulary = guessed(effective, sample) if stored is None else _known(stored, sample)
    text = text_size(effective, vocabulary.tokens_per_byte)
    machine = this_machine(effective, settings)
    refuse(estimate(effective, vocabulary.least_size, text, machine), machine)
    compared = slowness_of_runs(effective, vocabulary.size, RunStore(settings.app.artifacts_root), machine)
    slowness = median(compared) if compared else 1.0
    cost = estimate(effective, vocabulary.size, text, machine, slowness=slowness)
    known: dict[str, object] = {"compared_runs": len(compared), "is_exact": stored is not None}
    return cost.model_copy(update=known)


def refuse(least: Cost, machine: Machine) -> None:
    """Refuse what does not fit even where the estimate is too high by as much as it ever was."""
    memory, disk = least.memory_bytes / SURE, least.disk_bytes / SURE
    if machine.memory_bytes is not None and memory > machine.memory_bytes:
        raise AppError(
            ErrorCode.MODEL_INCOMPATIBLE,
            f"This training needs at least {memory / GIB:.1f} GiB of memory, and this machine has"
            f" {machine.memory_bytes / GIB:.1f}: make `batch_size`, `max_seq_len` or `model_size` smaller.",
        )
    if machine.free_disk_bytes is not None and disk > machine.free_disk_bytes:
        raise AppError(
            ErrorCode.INSUFFICIENT_STORAGE,
            f"The checkpoints of this training need at least {disk / MIB:,.1f} MiB, and the disk has"
            f" {machine.free_disk_bytes / MIB:,.1f} free: make room, or `model_size` smaller.",
        )


def this_machine(effective: EffectiveRequest, settings: Settings) -> Machine:
    """What is known of where the worker will compute; one that has its queue elsewhere may be elsewhere itself."""
    is_here = settings.redis.url is None
    on_cuda = effective.device.startswith("cuda") or (effective.device == "auto" and is_here and may_have_cuda())
    root = settings.app.artifacts_root.absolute()
    there = next(place for place in (root, *root.parents) if place.exists())
    return Machine(
        on_cuda=on_cuda,
        has_bf16=on_cuda or (is_here and has_bf16()),
        memory_bytes=memory_bytes() if is_here and not on_cuda else None,
        free_disk_bytes=shutil.disk_usage(there).free,
    )


def slowness_of_runs(effective: EffectiveRequest, vocab_size: int, runs: RunStore, machine: Machine) -> list[float]:
    """How much longer the steps of earlier runs took than foreseen: of the few that are most like this one.

    They are of the same family, and were trained with as many threads on such a processor (or on a GPU).
    """
    expected = step_seconds(effective, vocab_size, on_cuda=machine.on_cuda)
    found: list[tuple[float, float]] = []
    for manifest in _ended(runs.latest_of_family(effective.model_family, _READ_MANIFESTS)):
        known, environment = manifest.model, manifest.environment
        seconds = manifest.timings.train_seconds
        if known is None or environment is None or not manifest.steps or seconds < _LEAST_SECONDS:
            continue
        if environment.device.startswith("cuda") != machine.on_cuda or environment.cpu != cpu_name():
            continue
        if not machine.on_cuda and environment.threads != effective.threads:
            continue
        foreseen = step_seconds(manifest.effective, known.vocab_size, on_cuda=machine.on_cuda)
        found.append((abs(math.log(foreseen / expected)), seconds / manifest.steps / foreseen))
    return [slowness for _, slowness in sorted(found)[:_COMPARED]]


def sample_of(corpus: Path) -> Sample:
    """Read pieces of a text that lie evenly over it, or all of a short one."""
    files = [(file, file.stat().st_size) for file in text_files(corpus)]
    total = sum(size for _, size in files)
    if total <= _PIECES * _PIECE_BYTES:
        raw = b"\n".join(file.read_bytes() for file, _ in files)
    else:
        raw = b"\n".join(_piece(files, total * number // _PIECES) for number in range(_PIECES))
    return Sample(raw.decode(errors="ignore"), len(raw))


def guessed(effective: EffectiveRequest, sample: Sample) -> Vocabulary:
    """The vocabulary that a run will make of its training split."""
    config = effective.tokenizer
    text = normalized(sample.text, config.normalization)
    lines, words = text.count("\n") + 1, text.split()
    characters = text.replace("\n", "")
    longer = effective.corpus.bytes * _trained_share(effective) / max(1, sample.bytes)
    match config:
        case CharTokenizerConfig():
            specials, tokens = 4 + config.mask_token, len(characters) + 2 * lines
            size, least_size = (kinds(characters, times / config.min_frequency) for times in (longer, min(1.0, longer)))
        case WordTokenizerConfig():
            specials, tokens = 2, len(words) + lines
            size, least_size = (kinds(words, times / config.min_frequency) for times in (longer, min(1.0, longer)))
        case _:
            specials, least_size = len(SPECIAL_NAMES[style_of(config)]), kinds(characters, min(1.0, longer))
            frequency = 2 if isinstance(config, SentencePieceTokenizerConfig) else config.min_frequency
            size = least_size + _TOKENS_OF_WORDS * kinds(words, longer / frequency)
            letters = _TOKEN_LETTERS * math.log2(min(size, config.vocab_size)) - _TOKEN_LETTERS_LESS
            letters_of_word = len(characters) / max(1, len(words))
            tokens = round(len(characters) / max(1.0, min(letters, letters_of_word))) + 2 * lines
    cap = config.vocab_size or math.inf
    size, least_size = (round(min(cap, specials + each)) for each in (size, least_size))
    return Vocabulary(size, least_size, tokens / max(1, sample.bytes))


def kinds(units: Sequence[str], longer: float) -> float:
    """How many kinds of units there are in a text so many times longer.

    They grow with a text as a power of its length (Heaps' law), which the first half shows beside the whole.
    """
    there, in_half = len(set(units)), len(set(units[: len(units) // 2]))
    power = math.log2(there / in_half) if in_half else 1.0
    return there * math.pow(longer, min(1.0, power))


def text_size(effective: EffectiveRequest, tokens_per_byte: float) -> TextSize:
    """How many tokens the parts of a training have: those cut from the corpus, or texts of their own."""
    ids = effective.corpus.bytes * tokens_per_byte
    validation, test = effective.validation_corpus, effective.test_corpus
    return TextSize(
        train=ids * _trained_share(effective),
        validation=validation.bytes * tokens_per_byte if validation else ids * effective.holdout_fraction,
        test=test.bytes * tokens_per_byte if test else ids * effective.test_fraction,
    )


def _trained_share(effective: EffectiveRequest) -> float:
    """What is left of the corpus where the held-out parts are cut from it."""
    validation = 0.0 if effective.validation_corpus else effective.holdout_fraction
    return 1.0 - validation - (0.0 if effective.test_corpus else effective.test_fraction)


def _known(stored: TokenizerManifest, sample: Sample) -> Vocabulary:
    lines = sample.text.count("\n") + 1
    tokens = len(sample.text) * stored.stats.avg_tokens_per_char + 2 * lines
    return Vocabulary(stored.vocab_size, stored.vocab_size, tokens / max(1, sample.bytes))


def _stored_tokenizer(effective: EffectiveRequest, settings: Settings) -> TokenizerManifest | None:
    root = settings.app.artifacts_root
    if effective.init_from_run_id is not None:
        return read_manifest(RunStore(root).get(effective.init_from_run_id).tokenizer)
    if effective.tokenizer_id is not None:
        return read_manifest(TokenizerStore(root).folder(effective.tokenizer_id))
    return None


def _piece(files: Sequence[tuple[Path, int]], position: int) -> bytes:
    """The bytes at a place of the files in a row, as far as they are of one file."""
    ends = list(accumulate(size for _, size in files))
    number = bisect_right(ends, position)
    path, size = files[number]
    with path.open("rb") as file:
        file.seek(position - ends[number] + size)
        return file.read(_PIECE_BYTES)


def _ended(runs: Sequence[RunDirectory]) -> Iterator[RunManifest]:
    for run in runs:
        try:
            manifest = run.manifest()
        except (OSError, ValueError) as error:
            log.warning("a run whose manifest cannot be read is compared with none", error=type(error).__name__)
            continue
        if manifest is not None:
            yield manifest
