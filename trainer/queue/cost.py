"""Estimates the cost of a training before it is queued, and what it needs of a worker; imports no torch.

Refuses a training that cannot fit, here or on any running worker.

Parameters are exact once the vocabulary is known. Memory is the sum of weights, gradients, optimizer moments,
activations and logits, in 4-byte numbers, on top of the process. Time comes from an earlier run of this machine.
"""

import math
import shutil
from collections.abc import Sequence
from typing import NamedTuple

import structlog

from trainer.artifacts.runs import RunStore
from trainer.config.checkpoint_schedule import TrainingSize, scheduled_steps
from trainer.config.defaults import TrainingText
from trainer.config.settings import Settings
from trainer.contracts.base import WaitReason, changed
from trainer.contracts.baselines import MAX_COUNTED_TOKENS
from trainer.contracts.cost import GIB, MIB, Cost
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.jobs import JobDevice, JobNeeds, WorkerInfo
from trainer.contracts.models import NgramConfig, TransformerConfig
from trainer.contracts.runs import EffectiveRequest, TrainRequest
from trainer.contracts.tokenizers import (
    BYTE_NAMES,
    ByteTokenizerConfig,
    CharTokenizerConfig,
    DocumentMode,
    TokenizerConfig,
    TokenizerManifest,
    WordTokenizerConfig,
    has_byte_fallback,
)
from trainer.contracts.wording import WAIT_MESSAGES, counted
from trainer.data.normalization import normalized
from trainer.data.text import TextSample, count_kinds
from trainer.system.hardware import cpu_name, has_bf16, may_have_cuda, memory_bytes

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

SAFETY_FACTOR = 1.5
"""A training is refused only if the estimate divided by this factor does not fit."""
UNMET: tuple[WaitReason | None, ...] = ("worker", "gpu", "cpu", "memory", "broken")
"""The reasons why no running worker takes a queued run."""
_NUMBER_BYTES = 4
_MOMENTS = {"adam": 2, "adamw": 2, "muon": 2}
_LOGITS_COPIES = 4
"""The logits, their log-softmax and the gradients of both."""
_COPIES_WHILE_SAVING = 4
"""Weights and moments in use, as bytes to write, as bytes read back, and as read back."""
MAX_NGRAMS = 14_000_000
"""As many n-grams as `trainer.ngrams` keeps."""
_STORED_BYTES_PER_NGRAM, _BYTES_PER_NGRAM, _BYTES_PER_COUNTED_TOKEN = 12, 40, 40
"""Of an n-gram model: its arrays on disk, and what counting needs in memory (measured)."""
_COUNTED_TOKENS = 1 << 21
"""Tokens that are counted at once."""
_PROCESS_BYTES = 400 << 20
_COUNTING_BYTES = 110
"""Memory for each token or character of the text while n-grams are counted, before the first step (measured)."""
_MAX_CHECKPOINTS = 3
"""Two complete checkpoints and the one that is being written."""
_CHARACTERS_PER_SUBWORD, _FEWER_PER_HALVING, _USUAL_SUBWORDS = 3.5, 0.37, 8000
"""A vocabulary of half the size has subwords that are shorter by so many characters (measured)."""
_SPECIAL_TOKENS = 4
_MIN_BF16_WIDTH = 128
"""Models of this width or more train 1.3 to 2 times as fast in bf16 (measured)."""
_MIN_BF16_FLOPS, _FLOPS_PER_WEIGHT = 1e13, 6
"""A training with less work takes about a minute on two cores, and is not worth a hint."""
_MAX_COMPARED_RUNS = 24
_MIN_TRAIN_SECONDS = 0.5
"""A shorter training says more about its start than about its speed."""


class Vocabulary(NamedTuple):
    """The size of a vocabulary and the number of tokens in a text, known or estimated."""

    size: int
    min_size: int
    """The units found in the sample, of an estimated vocabulary."""
    tokens_per_byte: float


class TrainText(NamedTuple):
    """The training split: tokens and words, known or estimated."""

    tokens: float
    words: float
    ngrams: float = 0.0
    """Different n-grams of all orders that an n-gram model counts."""


class TextEstimate(NamedTuple):
    """The vocabulary of a run and its training split."""

    vocabulary: Vocabulary
    text: TrainText

    @property
    def for_rules(self) -> TrainingText:
        """The training split as the rules for absent values see it."""
        return TrainingText(round(self.text.tokens), self.vocabulary.size)


class Machine(NamedTuple):
    """The machine of the worker, as far as it is known."""

    on_cuda: bool
    has_bf16: bool
    memory_bytes: int | None
    """None for a worker on another machine, and for a GPU."""
    free_disk_bytes: int


def preview_cost(
    effective: EffectiveRequest,
    measured: TextEstimate,
    sample: TextSample,
    settings: Settings,
    *,
    n_runs: int = 1,
) -> Cost:
    """Estimate the cost of one run of a checked request, given a sample of its corpus and its measured text.

    Raises MODEL_INCOMPATIBLE or INSUFFICIENT_STORAGE if two thirds of the estimate exceed memory, or for all runs
    free disk.
    """
    vocabulary, text = measured
    train_tokens, is_exact = text.tokens, effective.tokenizer_id is not None
    machine = this_machine(effective, settings)
    if isinstance(effective.model, NgramConfig):
        growth = sample.corpus_bytes * train_share(effective) / max(1, sample.n_bytes)
        tokens = vocabulary.tokens_per_byte * sample.n_bytes
        ngrams = count_ngrams(sample.text, tokens, growth, effective.model.max_order)
        text = text._replace(ngrams=ngrams)
    check_fits(estimate(effective, vocabulary.min_size, text, machine), machine, n_runs)
    cost = estimate(effective, vocabulary.size, text, machine)
    if effective.minutes is not None:
        return changed(cost, seconds=60 * effective.minutes, is_given_time=True, is_exact=is_exact)
    speed = find_speed(effective, cost.params, RunStore(settings.app.artifacts_root), on_cuda=machine.on_cuda)
    seconds = None
    if speed is not None:
        tokens = train_tokens * cost.steps / steps_per_epoch(effective, train_tokens)
        seconds = min(tokens / speed, effective.max_seconds or math.inf)
    return changed(cost, seconds=seconds, is_exact=is_exact)


def measure_text(
    request: TrainRequest | EffectiveRequest,
    tokenizer: TokenizerConfig,
    sample: TextSample,
    stored: TokenizerManifest | None,
) -> TextEstimate:
    """Estimate the training split of a corpus in tokens of a stored tokenizer, or of one that the run trains."""
    text, sample_bytes, corpus_bytes = sample
    train_bytes = corpus_bytes * train_share(request)
    if stored is None:
        vocabulary = estimate_vocabulary(tokenizer, request.documents, train_bytes, text, sample_bytes)
    else:
        tokens = len(text) * stored.stats.avg_tokens_per_char + 2 * (text.count("\n") + 1)
        vocabulary = Vocabulary(stored.vocab_size, stored.vocab_size, tokens / max(1, sample_bytes))
    words = train_bytes * len(text.split()) / max(1, sample_bytes)
    return TextEstimate(vocabulary, TrainText(train_bytes * vocabulary.tokens_per_byte, words))


def estimate_vocabulary(
    config: TokenizerConfig, documents: DocumentMode, train_bytes: float, sample: str, sample_bytes: int
) -> Vocabulary:
    """Estimate the vocabulary that a run will build from a training split of some bytes."""
    text = normalized(sample, config.normalization)
    lines, words, characters = text.count("\n") + 1, text.split(), text.replace("\n", "")
    growth = train_bytes / max(1, sample_bytes)
    marks = 2 if documents == "line" else 1
    match config:
        case CharTokenizerConfig():
            size, min_size = (count_kinds(characters, times) for times in (growth, min(1.0, growth)))
            tokens = len(characters) + marks * lines
        case ByteTokenizerConfig():
            size = min_size = 256
            tokens = len(characters.encode()) + marks * lines
        case WordTokenizerConfig():
            frequency = config.min_frequency
            size, min_size = (count_kinds(words, times / frequency) for times in (growth, min(1.0, growth)))
            tokens = len(words) + lines
        case _:
            min_size = count_kinds(characters, min(1.0, growth))
            min_size += len(BYTE_NAMES) if has_byte_fallback(config) else 0
            size = min_size + count_kinds(words, growth / 2)  # a subword occurs at least twice
            share = min(1.0, config.vocab_size / _USUAL_SUBWORDS)
            per_token = _CHARACTERS_PER_SUBWORD + _FEWER_PER_HALVING * math.log2(share)
            per_token = min(per_token, len(characters) / max(1, len(words)))
            tokens = round(len(characters) / max(1.0, per_token)) + marks * lines
    cap = config.vocab_size or math.inf
    size, min_size = (round(min(cap, kinds + _SPECIAL_TOKENS)) for kinds in (size, min_size))
    return Vocabulary(size, min_size, tokens / max(1, sample_bytes))


def count_ngrams(sample: str, tokens: float, growth: float, max_order: int) -> float:
    """Estimate the different n-grams up to an order in a text `growth` times as long as a sample of some tokens.

    A string as long as n tokens of the sample stands for n tokens.
    """
    length = max(1, round(len(sample) / max(1.0, tokens)))
    starts = range(0, len(sample), length)
    strings = ([sample[start : start + n * length] for start in starts] for n in range(1, max_order + 1))
    return min(MAX_NGRAMS, sum(count_kinds(of_order, growth) for of_order in strings))


def train_share(request: TrainRequest | EffectiveRequest) -> float:
    """Return the share of the corpus that is left for training."""
    validation = 0.0 if request.validation_corpus else request.holdout_fraction
    return 1.0 - validation - (0.0 if request.test_corpus else request.test_fraction)


def steps_per_epoch(effective: EffectiveRequest, train_tokens: float) -> int:
    if isinstance(effective.model, NgramConfig):
        return 1
    return max(1, math.ceil(train_tokens / step_tokens(effective)))


def step_tokens(effective: EffectiveRequest) -> int:
    return effective.max_seq_len * effective.batch_size * effective.gradient_accumulation


def this_machine(effective: EffectiveRequest, settings: Settings) -> Machine:
    """Describe the worker's machine; a worker of a queue elsewhere may be elsewhere itself."""
    is_here = settings.redis.url is None
    on_cuda = effective.device.startswith("cuda") or (effective.device == "auto" and is_here and may_have_cuda())
    root = settings.app.artifacts_root.absolute()
    return Machine(
        on_cuda=on_cuda,
        has_bf16=on_cuda or (is_here and has_bf16()),
        memory_bytes=memory_bytes() if is_here and not on_cuda else None,
        free_disk_bytes=shutil.disk_usage(next(path for path in (root, *root.parents) if path.exists())).free,
    )


def estimate(effective: EffectiveRequest, vocab_size: int, text: TrainText, machine: Machine) -> Cost:
    """Estimate parameters, memory, disk and steps; the time stays unknown."""
    model, length = effective.model, effective.max_seq_len
    if isinstance(model, NgramConfig):
        return _cost_of_counting(text)
    params = model.parameter_count(vocab_size)
    width = model.hidden_size if isinstance(model, TransformerConfig) else model.embedding_size
    trained = params - (vocab_size * width if effective.freeze_embeddings else 0)
    checkpoint = params + trained * _MOMENTS.get(effective.optimizer.name, 0)
    if effective.optimizer.name == "muon":  # a matrix of a hidden layer has one moment
        checkpoint -= model.parameter_count(0)
    if effective.ema_decay is not None:
        checkpoint += trained  # the weights and their average
    rows = min(effective.batch_size, max(1, math.ceil(text.tokens / length)))
    activations = model.activation_count(length)
    if effective.compute.gradient_checkpointing:
        activations //= model.num_layers
    copies = effective.devices if effective.strategy == "ddp" else 1
    in_step = copies * (checkpoint + trained) + rows * length * (activations + _LOGITS_COPIES * vocab_size)
    in_epoch = steps_per_epoch(effective, text.tokens)
    steps = min(in_epoch * effective.num_epochs, effective.max_steps or in_epoch * effective.num_epochs)
    saves = steps // effective.checkpoint_every_steps + 1 if effective.checkpoint_every_steps else steps / in_epoch
    size = TrainingSize(
        total_steps=steps,
        rows_per_step=effective.batch_size * effective.gradient_accumulation,
        rows=max(1, math.ceil(text.tokens / length)),
        words=round(text.words),
        tokens=round(text.tokens),
    )
    scheduled = scheduled_steps(effective.checkpoint_schedule, size)
    checkpoints = min(math.ceil(saves), _MAX_CHECKPOINTS)
    full_width = ("fp32",) if machine.on_cuda else ("fp32", "auto")
    flops = _FLOPS_PER_WEIGHT * params * rows * length * steps
    is_counted = effective.objective == "causal_lm" and not machine.on_cuda  # which need no memory of a GPU
    counted = text.tokens * (1 if effective.tokenizer.method == "char" else _CHARACTERS_PER_SUBWORD)
    counting_bytes = _COUNTING_BYTES * min(round(counted), MAX_COUNTED_TOKENS) if is_counted else 0
    return Cost(
        params=params,
        memory_bytes=max(_NUMBER_BYTES * max(in_step, _COPIES_WHILE_SAVING * checkpoint), counting_bytes)
        + (0 if machine.on_cuda else effective.devices * _PROCESS_BYTES),
        disk_bytes=_NUMBER_BYTES * (checkpoints * checkpoint + (1 + len(scheduled)) * params),
        kept_checkpoints=len(scheduled),
        kept_bytes=_NUMBER_BYTES * len(scheduled) * params,
        steps=steps,
        bf16_pays=machine.has_bf16
        and effective.precision in full_width
        and model.hidden_size >= _MIN_BF16_WIDTH
        and flops >= _MIN_BF16_FLOPS,
    )


def _cost_of_counting(text: TrainText) -> Cost:
    """Estimate the memory and the disk of an n-gram model, which has one step."""
    counted_tokens = min(text.tokens, _COUNTED_TOKENS)
    return Cost(
        params=round(text.ngrams),
        memory_bytes=round(_BYTES_PER_NGRAM * text.ngrams + _BYTES_PER_COUNTED_TOKEN * counted_tokens) + _PROCESS_BYTES,
        disk_bytes=round(_STORED_BYTES_PER_NGRAM * text.ngrams),
        steps=1,
    )


def check_fits(cost: Cost, machine: Machine, n_runs: int = 1) -> None:
    """Raise MODEL_INCOMPATIBLE or INSUFFICIENT_STORAGE if even two thirds of an estimate, for each run, do not fit."""
    memory, disk = cost.memory_bytes / SAFETY_FACTOR, n_runs * cost.disk_bytes / SAFETY_FACTOR
    if machine.memory_bytes is not None and memory > machine.memory_bytes:
        raise AppError(
            ErrorCode.MODEL_INCOMPATIBLE,
            f"This training needs at least {memory / GIB:.1f} GiB of memory, and this machine has"
            f" {machine.memory_bytes / GIB:.1f}: make `batch_size`, `max_seq_len` or the model smaller.",
        )
    if disk > machine.free_disk_bytes:
        whose = "this training" if n_runs == 1 else f"these {n_runs} trainings"
        needed, free = f"{disk / MIB:,.1f}", f"{machine.free_disk_bytes / MIB:,.1f}"
        remedy = "make room, or the model smaller"
        if cost.kept_checkpoints:
            remedy = "make room, or the model smaller, or keep fewer checkpoints with `checkpoint_schedule`"
        raise AppError(
            ErrorCode.INSUFFICIENT_STORAGE,
            f"The checkpoints of {whose} need at least {needed} MiB, and the disk has {free} free: {remedy}.",
        )


def find_speed(effective: EffectiveRequest, params: int, runs: RunStore, *, on_cuda: bool) -> float | None:
    """Return the expected tokens per second, from the finished run of this family that is nearest in size.

    Only runs on such a processor with as many requested threads count, or runs on a GPU. Returns None if there is none.
    """
    speeds: list[tuple[float, float]] = []
    for run in runs.latest_of_family(effective.model_family, _MAX_COMPARED_RUNS):
        try:
            manifest = run.manifest()
        except (OSError, ValueError) as error:
            log.warning("manifest_unreadable", run_id=run.run_id, error=type(error).__name__)
            continue
        if manifest is None:
            continue
        model, data, environment = manifest.model, manifest.data, manifest.environment
        seconds = manifest.timings.train_seconds
        if not (model and data and environment and manifest.steps and seconds >= _MIN_TRAIN_SECONDS):
            continue
        is_like = environment.cpu == cpu_name() and environment.device.startswith("cuda") == on_cuda
        is_like &= environment.devices == effective.devices
        if is_like and (on_cuda or manifest.effective.threads == effective.threads):
            epochs = manifest.steps / steps_per_epoch(manifest.effective, data.train.tokens)
            ratio = 1.0 if isinstance(effective.model, NgramConfig) else model.params / params
            speeds.append((abs(math.log(ratio)), epochs * data.train.tokens / seconds * ratio))
    return min(speeds)[1] if speeds else None


def needs_of(effective: EffectiveRequest, cost: Cost | None) -> JobNeeds:
    """Return the needs of a training; one with an estimated cost needs two thirds of its memory.

    `cuda:N` names a GPU of the worker, which needs more than N of them. Precision fp16 needs a GPU, too.
    """
    memory_bytes = 0 if cost is None else int(cost.memory_bytes / SAFETY_FACTOR)
    name, _, number = effective.device.partition(":")
    if name == "cuda" or effective.precision == "fp16":
        gpus = max(effective.devices, int(number or 0) + 1)
        return JobNeeds(device="cuda", gpus=gpus, memory_bytes=memory_bytes)
    device: JobDevice = "cpu" if name == "cpu" else "any"
    return JobNeeds(device=device, memory_bytes=memory_bytes)


def unmet(needs: JobNeeds, workers: Sequence[WorkerInfo]) -> WaitReason | None:
    """Return what none of the workers that take jobs has for this one; None if one can, or if none takes any."""
    ready = [worker for worker in workers if worker.state == "ready"]
    if any(worker.can_take(needs) for worker in ready):
        return None
    if any(worker.is_broken and worker.can_take(needs) for worker in workers):
        return "broken"
    if not ready:
        return None
    if needs.gpus > max(len(worker.gpu_memory_bytes) for worker in ready):
        return "gpu"
    if max(worker.room_bytes(needs.device) for worker in ready) < 0:
        return "cpu"
    return "memory"


def check_workers(needs: JobNeeds, workers: Sequence[WorkerInfo]) -> None:
    """Refuse a training that none of the workers that take jobs can hold; without such a worker, refuse nothing.

    Raises CUDA_NOT_AVAILABLE, unless a worker of this machine may have a GPU, or MODEL_INCOMPATIBLE.
    """
    ready = [worker for worker in workers if worker.state == "ready"]
    missing = unmet(needs, ready)
    if missing == "gpu" and not may_have_cuda():
        raise AppError(
            ErrorCode.CUDA_NOT_AVAILABLE,
            f"This training needs {counted(needs.gpus, 'GPU')}, and no running worker has as many: use `device` 'cpu',"
            " or start a worker on a machine with CUDA.",
        )
    if missing == "memory":
        most = max(worker.room_bytes(needs.device) for worker in ready)
        raise AppError(
            ErrorCode.MODEL_INCOMPATIBLE,
            f"This training needs at least {needs.memory_bytes / GIB:.1f} GiB of memory, and the largest running worker"
            f" has {most / GIB:.1f}: make `batch_size`, `max_seq_len` or the model smaller.",
        )


def waiting_for(training: Sequence[str], ahead: int) -> str:
    """Return what a queued run waits for: runs that train now, of `ahead` runs before it."""
    if not training:
        return WAIT_MESSAGES["turn"]
    message = f"Waiting for {training[0]}, which trains now"
    if len(training) > 1:
        message = f"Waiting for {' and '.join(training)}, which train now"
    if ahead > len(training):
        return f"{message}; {counted(ahead - len(training), 'other run')} before it."
    return f"{message}."
