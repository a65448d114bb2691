"""Requests as they are accepted: checked with all that they name, their absent values filled."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from pydantic_core import to_json

from trainer.artifacts.checkpoint_files import newest_whole
from trainer.artifacts.runs import Origin, RunDirectory, RunStore
from trainer.artifacts.tokenizer_files import read_manifest, unknown_share
from trainer.artifacts.tokenizers import TokenizerStore
from trainer.config.presets import request_hash, resolve
from trainer.config.settings import Settings
from trainer.contracts.base import changed
from trainer.contracts.compatibility import architecture, check_precision, check_text_length
from trainer.contracts.cost import Cost
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.runs import CorpusRef, EffectiveRequest, RunRecord, Setting, TrainRequest
from trainer.data.corpora import CorpusStore
from trainer.data.normalization import normalized
from trainer.data.text import line_blocks, text_files
from trainer.jobs.bf16_trial import check_bf16_here
from trainer.jobs.cost import preview_cost
from trainer.system.hardware import default_threads, may_have_cuda

_SAMPLED_LINES = 1000
_MOST_UNKNOWN = 0.5
_BYTES_PER_TOKEN = 16
"""A longer text is not read for its tokens before the training."""


class TrainingPreview(NamedTuple):
    """A checked training request with its estimated cost; nothing has been stored or enqueued yet."""

    request: TrainRequest
    effective: EffectiveRequest
    cost: Cost
    corpora: CorpusStore
    """Its corpora, some of which may have been offered for this request only."""
    requested_paths: tuple[str, ...] | None
    unused_settings: Mapping[str, Setting]


async def preview_training(
    request: TrainRequest,
    corpora: CorpusStore,
    settings: Settings,
    *,
    requested_paths: tuple[str, ...] | None = None,
    unused_settings: Mapping[str, Setting] = MappingProxyType({}),
) -> TrainingPreview:
    """Check a training request and estimate its cost; changes nothing.

    `requested_paths` and `unused_settings` are what the experiment file says besides the request; both are recorded.
    Raises AppError, also if the training would not fit into this machine's memory or onto its disk.
    """
    request = with_labelled_tokenizer(request, requested_paths, settings)
    effective = await resolve_request(request, corpora, settings)
    cost = await preview_cost(effective, corpora, settings)
    return TrainingPreview(request, effective, cost, corpora, requested_paths, unused_settings)


async def resolve_request(request: TrainRequest, corpora: CorpusStore, settings: Settings) -> EffectiveRequest:
    """Check a training and all that it names, and fill its absent values; raises AppError, having changed nothing."""

    async def describe(corpus: str | None) -> CorpusRef | None:
        return None if corpus is None else await corpora.describe(corpus)

    await _check_device(request, settings)
    request = _in_splits(request, corpora)
    parent = _parent(request, RunStore(settings.app.artifacts_root))
    tokenizer_folder = _tokenizer_folder(request, parent, settings)
    tokenizer = None if tokenizer_folder is None else read_manifest(tokenizer_folder)
    effective = resolve(
        request,
        corpus=await corpora.describe(request.corpus, minimum_lines=splits_of_corpus(request)),
        validation_corpus=await describe(request.validation_corpus),
        test_corpus=await describe(request.test_corpus),
        threads=request.threads or default_threads(),
        parent=None if parent is None else parent.completed_manifest(),
        tokenizer=tokenizer,
    )
    _check_files(request, corpora)
    if tokenizer_folder is not None:
        await asyncio.to_thread(_check_vocabulary, tokenizer_folder, corpora, request)
    await asyncio.to_thread(_check_length, effective, corpora.find(request.corpus))
    return effective


def with_labelled_tokenizer(
    request: TrainRequest, requested_paths: tuple[str, ...] | None, settings: Settings
) -> TrainRequest:
    """The request with the tokenizer whose label is the folder for tokenizers that its file names, where there is one.

    Without one the run makes its own, from its training split alone, which a job of its own could not keep to. Raises
    MODEL_INCOMPATIBLE where the tokenizer is not what the request says of it, CONFLICT while it is being trained.
    """
    asked = request.tokenizer
    if asked is None or requested_paths is None:
        return request
    tokenizer = TokenizerStore(settings.app.artifacts_root).labelled(requested_paths[0])
    if tokenizer is None:
        return request
    manifest = tokenizer.completed_manifest()
    for name in type(asked).model_fields:
        wanted: object = getattr(asked, name)
        has: object = getattr(manifest.config, name, None)
        is_kept_cap = name == "vocab_size" and has is None and isinstance(wanted, int) and manifest.vocab_size <= wanted
        if name in asked.model_fields_set and wanted != has and not is_kept_cap:
            raise AppError(
                ErrorCode.MODEL_INCOMPATIBLE,
                f"`tokenizer.{name}` is {to_json(wanted).decode()}, but the tokenizer '{manifest.tokenizer_id}', which"
                f" has the label '{requested_paths[0]}', was made with {to_json(has).decode()}: ask for the same, or"
                " name another folder for tokenizers.",
            )
    instead: dict[str, object] = {"tokenizer": None, "tokenizer_id": manifest.tokenizer_id}
    return request.model_copy(update=instead)


def _in_splits(request: TrainRequest, corpora: CorpusStore) -> TrainRequest:
    """The request with the texts of a folder that is made of splits, where it does not name others for them."""
    named = {"validation_corpus": request.validation_corpus, "test_corpus": request.test_corpus}
    splits = corpora.splits(request.corpus)
    own: dict[str, object] = {field: text for field, text in splits.items() if named.get(field) is None}
    return request.model_copy(update=own)


async def resolve_origin(run: RunDirectory, corpora: CorpusStore, settings: Settings) -> Origin:
    """Check that a run can be gone on with, and that its request still means the same; raises AppError."""
    manifest = run.manifest()
    if manifest is None:
        raise AppError(ErrorCode.RUN_NOT_READY, f"The run '{run.run_id}' has not ended: it goes on by itself.")
    if manifest.status == "completed":
        raise AppError(
            ErrorCode.RUN_FINISHED,
            f"The run '{run.run_id}' is completed: to train on from its weights, begin another one with"
            " it as `init_from_run_id`.",
        )
    state = await asyncio.to_thread(newest_whole, run.checkpoints)
    if state is None:
        raise AppError(
            ErrorCode.CONFLICT,
            f"The run '{run.run_id}' has no whole checkpoint to resume from: start a new training.",
        )
    await _check_same(run.record(), corpora, settings)
    return Origin(run, state)


async def _check_same(record: RunRecord, corpora: CorpusStore, settings: Settings) -> None:
    """Refuse to go on where the request, asked again, is another training: the checkpoint is of the old one."""
    request = changed(record.request, threads=record.effective.threads)  # on any machine the same number
    try:
        again = await resolve_request(request, corpora, settings)
    except AppError as error:
        raise AppError(error.code, f"The run '{record.run_id}' cannot be resumed. {error.message}") from None
    if request_hash(again) == record.request_hash:
        return
    same_texts = _texts(again) == _texts(record.effective)
    what = "its request means something else by now" if same_texts else "its text has changed since"
    raise AppError(ErrorCode.CONFLICT, f"The run '{record.run_id}' cannot be resumed: {what}. Start a new training.")


def _texts(effective: EffectiveRequest) -> tuple[CorpusRef | None, ...]:
    return effective.corpus, effective.validation_corpus, effective.test_corpus


async def _check_device(request: TrainRequest, settings: Settings) -> None:
    """Refuse what this machine cannot do where the worker is on it; a worker elsewhere refuses by itself."""
    device = request.device
    has_cuda = settings.redis.url is not None or may_have_cuda()
    if device.startswith("cuda") and not has_cuda:
        raise AppError(
            ErrorCode.CUDA_NOT_AVAILABLE, f"`device` is '{device}', but this machine has no CUDA: use 'cpu'."
        )
    check_precision(request.precision, on_cuda=has_cuda and device != "cpu")
    on_cpu = device == "cpu" or (device == "auto" and not may_have_cuda())
    if request.precision == "bf16" and on_cpu and settings.redis.is_local:
        await check_bf16_here(architecture(request.model_family), settings)


def _check_files(request: TrainRequest, corpora: CorpusStore) -> None:
    """Refuse to split a corpus by files where there are too few."""
    files, needed = len(text_files(corpora.find(request.corpus))), splits_of_corpus(request)
    if request.split_by == "file" and files < needed:
        raise AppError(
            ErrorCode.CORPUS_EMPTY,
            f"`split_by` is 'file', which needs a folder of at least {needed} texts, one for each split;"
            f" '{request.corpus}' has {files}.",
        )


def _parent(request: TrainRequest, runs: RunStore) -> RunDirectory | None:
    """The completed run that a warm start begins from."""
    if request.init_from_run_id is None:
        return None
    try:
        parent = runs.get(request.init_from_run_id)
        parent.completed_manifest()
    except AppError as error:
        raise AppError(error.code, f"`init_from_run_id` names no run to start from. {error.message}") from None
    return parent


def _tokenizer_folder(request: TrainRequest, parent: RunDirectory | None, settings: Settings) -> Path | None:
    """Where the tokenizer is that the run is to use; None for one that makes its own."""
    if parent is not None:
        return parent.tokenizer
    if request.tokenizer_id is None:
        return None
    tokenizers = TokenizerStore(settings.app.artifacts_root)
    tokenizers.completed_manifest(request.tokenizer_id)
    return tokenizers.folder(request.tokenizer_id)


def _check_vocabulary(tokenizer_folder: Path, corpora: CorpusStore, request: TrainRequest) -> None:
    """Refuse a text that the given tokenizer hardly knows: its model would learn to predict unknown tokens."""
    lines = corpora.sample_lines(request.corpus, _SAMPLED_LINES, request.seed)
    unknown = unknown_share(tokenizer_folder, lines)
    if unknown > _MOST_UNKNOWN:
        raise AppError(
            ErrorCode.MODEL_INCOMPATIBLE,
            f"The tokenizer does not know {unknown:.0%} of the tokens of '{request.corpus}': train one on texts like"
            " it, or start from a run in the same script.",
        )


def _check_length(effective: EffectiveRequest, corpus: Path) -> None:
    """Refuse a corpus that has fewer tokens than one row, whatever its tokens are: the worker counts the split itself.

    A token has a character at least, or a word, and each line one more for its end.
    """
    length, method = effective.max_seq_len, effective.tokenizer.method
    if effective.corpus.bytes > _BYTES_PER_TOKEN * length:
        return
    lines = [normalized(line, effective.tokenizer.normalization) for block in line_blocks(corpus) for line in block]
    per_line = 2 if method == "sentencepiece" else 1  # which puts a space before each line
    tokens = sum(len(line.split() if method == "word" else line) + per_line for line in lines)
    check_text_length(tokens, length, of="the corpus", fits=tokens // 2)


def splits_of_corpus(request: TrainRequest) -> int:
    """How many parts are cut from the corpus, each of which needs a line."""
    cut_test = request.test_corpus is None and request.test_fraction > 0
    return 1 + (request.validation_corpus is None) + cut_test
