"""Checks of architectures, objectives and options that do not work together, before a job is queued."""

from collections.abc import Iterator

from trainer.contracts import models
from trainer.contracts.base import Frozen
from trainer.contracts.errors import AppError, ErrorCode, FieldProblem, field_error, refusal
from trainer.contracts.inference import ScoreRequest
from trainer.contracts.runs import TrainRequest
from trainer.contracts.tokenizers import DocumentMode, TokenizerMethod
from trainer.contracts.wording import counted

_MIN_SEQ_LEN = 8
"""Smallest `max_seq_len`."""


def architecture(family: models.ModelFamily) -> models.Architecture:
    return "lstm" if family == "char_lstm" else family


def objective_of(request: TrainRequest) -> models.Objective:
    """Return the training objective, by default the first of the architecture."""
    is_given = "objective" in request.model_fields_set
    return request.objective if is_given else models.CONFIGS[architecture(request.model_family)].objectives[0]


def check(request: TrainRequest) -> None:
    """Raise MODEL_INCOMPATIBLE if the parts of a request do not work together."""
    if problems := list(_problems(request)):
        raise refusal(ErrorCode.MODEL_INCOMPATIBLE, *problems)


def is_unidirectional(config: models.ModelConfig) -> bool:
    return "causal_lm" in config.objectives and not (isinstance(config, models.RnnConfig) and config.bidirectional)


def check_generates(objective: models.Objective) -> None:
    """Raise MODEL_INCOMPATIBLE for a model that cannot generate text."""
    if objective == "masked_lm":
        message = "This run was trained with masked_lm and cannot generate text. Score text instead."
        raise AppError(ErrorCode.MODEL_INCOMPATIBLE, message)


class Bf16Trial(Frozen):
    """The result of trying bf16 on a CPU."""

    architecture: models.Architecture
    trains: bool
    gru_trains: bool
    """True if the CPU can train a GRU in bf16."""


def check_bf16(trial: Bf16Trial) -> None:
    """Raise INVALID_INPUT if the CPU cannot train the architecture in bf16."""
    if not trial.trains:
        instead = " GRU models work in bf16." if trial.gru_trains else ""
        raise field_error(
            ErrorCode.INVALID_INPUT,
            "precision",
            "must be 'fp32' or 'auto': this machine's CPU cannot train"
            f" {trial.architecture.upper()} models in bf16.{instead}",
        )


def check_precision(precision: str, *, on_cuda: bool) -> None:
    """Raise INVALID_INPUT for a precision that the device does not support."""
    if precision == "fp16" and not on_cuda:
        raise field_error(ErrorCode.INVALID_INPUT, "precision", "'fp16' needs CUDA: on the CPU take 'fp32' or 'auto'.")


def check_text_length(tokens: int, max_seq_len: int, *, of: str, fits: int) -> None:
    """Raise CORPUS_TOO_SHORT if a split has fewer tokens than a row; `fits` is a row length that works."""
    if tokens < max_seq_len:
        shorter = f"make `max_seq_len` {fits:,} or less, or " if fits >= _MIN_SEQ_LEN else ""
        raise field_error(
            ErrorCode.CORPUS_TOO_SHORT,
            "max_seq_len",
            f"is {max_seq_len:,}, but {of} has {counted(tokens, 'token')} only, less than one sequence:"
            f" {shorter}give a longer text.",
        )


def check_newlines(documents: DocumentMode, method: TokenizerMethod) -> None:
    """Raise MODEL_INCOMPATIBLE for a stream with a tokenizer that has no token for a newline."""
    if documents == "stream" and method == "sentencepiece":
        raise field_error(
            ErrorCode.MODEL_INCOMPATIBLE,
            "documents",
            "'stream' needs a newline token, which 'sentencepiece' has not: take char, byte, word, bpe or wordpiece.",
        )


def check_scores(request: ScoreRequest, objective: models.Objective) -> None:
    """Raise MODEL_INCOMPATIBLE for options that the model does not support."""
    if objective == "masked_lm" and request.context == "none":
        message = "'none' is for causal models only; this run was trained with masked_lm."
        raise field_error(ErrorCode.MODEL_INCOMPATIBLE, "context", message)
    if objective == "causal_lm" and request.pll_within_word:
        message = "is for masked models only; this run was trained with causal_lm."
        raise field_error(ErrorCode.MODEL_INCOMPATIBLE, "pll_within_word", message)


def _problems(request: TrainRequest) -> Iterator[FieldProblem]:
    family, objective = request.model_family, objective_of(request)
    config = models.CONFIGS[architecture(family)]
    is_bidirectional = bool((request.model or models.ModelBlock()).bidirectional)
    if objective not in config.objectives and objective == "causal_lm":
        said = f"must be 'masked_lm' for {family}: it reads both sides and would see what it is to predict"
        yield _problem("objective", said, "'masked_lm'")
    if objective not in config.objectives and objective == "masked_lm":
        said = f"must be 'causal_lm' for {family}: it cannot see what comes after a masked token"
        yield _problem("objective", said, "'causal_lm'")
    if family == "char_lstm" and request.tokenizer is not None and request.tokenizer.method != "char":
        said = "must be 'char' for char_lstm: take lstm for another tokenizer"
        yield _problem("tokenizer.method", said, "'char'")
    if is_bidirectional and family == "char_lstm":
        said = "must be false for char_lstm, which has one direction: take lstm"
        yield _problem("model.bidirectional", said, "false")
    elif is_bidirectional and objective == "causal_lm":
        said = "must be false: with causal_lm the model would see what it is to predict; masked_lm takes two directions"
        yield _problem("model.bidirectional", said, "false")
    if not issubclass(config, models.TransformerConfig) and request.compute.gradient_checkpointing:
        said = "is for transformers: with a recurrent model it must be false"
        yield _problem("compute.gradient_checkpointing", said, "false")
    if objective == "masked_lm" and request.sample_every_steps is not None:
        said = "must be left out: a model that was trained to fill gaps generates no text"
        yield _problem("sample_every_steps", said, "null")


def _problem(path: str, said: str, allowed: str) -> FieldProblem:
    return FieldProblem.of(path, f" {said}", allowed=allowed)
