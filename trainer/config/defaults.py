"""Defaults of a training by rule: what follows from its family, its weights and its text.

docs/defaults.md has the measurements that the rules come from.
"""

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from trainer.config.validation import value_at
from trainer.contracts.models import (
    Architecture,
    ModelConfig,
    ModelFamily,
    NgramConfig,
    RnnConfig,
    default_tokenizer_method,
)
from trainer.contracts.tokenizers import BYTE_NAMES, SubwordConfig, has_byte_fallback
from trainer.contracts.training_options import ChosenValue, ModelSize, Pace

_Value = bool | int | float | str
Standard = Literal["char_lstm", "keyboard"]
"""Models whose values the requirements fix."""
STANDARDS: Mapping[Standard, Mapping[str, _Value]] = {
    "char_lstm": {
        **{"max_seq_len": 256, "batch_size": 64, "learning_rate": 2e-3},
        **{"model.dropout": 0.1, "model.dropout_places": "between_layers"},
    },
    "keyboard": {
        **{"max_seq_len": 30, "batch_size": 64, "learning_rate": 1e-3},
        **{"optimizer.name": "adam", "model.dropout": 0.2},
    },
}
"""Values of the standard models, which hold for texts of at least 200 such steps."""
_STANDARD_SIZES: Mapping[Standard, str] = {"char_lstm": "small", "keyboard": "base"}

_LONG_UNITS_FROM_CHARACTERS = 1_600_000
"""With fewer training characters, a model of characters is better than one of words or subwords."""
_CHARACTERS_PER_SUBWORD, _MIN_SUBWORDS, _MAX_VOCABULARY = 500, 256, 8000
"""A subword that occurs seldom is learned badly."""
_STEPS_PER_EPOCH = 200
"""With fewer and larger steps, an epoch of a short text teaches less."""
_ROW_TOKENS, _SHORT_ROW_TOKENS, _MIN_ROW_TOKENS, _ROWS_IN_TEXT = 128, 64, 8, 4
_SHORT_ROWS_BELOW_TOKENS = 2_000_000
"""GPT-2 learns from short rows sooner: it learns each position of a row, which then occurs more often."""
_MIN_STEP_TOKENS, _MAX_STEP_TOKENS = 512, 16384
_EPOCHS_OF_A_MILLION, _EPOCHS_POWER, _MAX_EPOCHS = 8, 0.4, 100
_SHORT_TEXT_SHARE, _MOST_OF_SHARE = 1.5, 50
"""A text too short for Muon is read in so many times the usual epochs, up to 50."""
_ROTARY_EPOCHS_SHARE = 0.7
"""With Muon, models with rotary positions know a text by heart after so many of the epochs of others."""


class _Kind(NamedTuple):
    """The constants of the rules for recurrent networks, or for transformers."""

    name: str
    muon_rate: float
    muon_weight_decay: float
    muon_from_tokens: int
    """Training tokens from which on Muon learns more than AdamW, and is worth its time."""
    dropout: float
    """With one weight per training token."""
    dropout_per_doubling: float


_RECURRENT = _Kind(
    "recurrent",
    muon_rate=1e-2,
    muon_weight_decay=0.1,
    muon_from_tokens=400_000,
    dropout=0.1,
    dropout_per_doubling=0.06,
)
_TRANSFORMER = _Kind(
    "transformer",
    muon_rate=5e-3,
    muon_weight_decay=0.3,
    muon_from_tokens=0,
    dropout=0,
    dropout_per_doubling=0.02,
)
_ADAMW_RATES: Mapping[Architecture, float] = {"lstm": 5e-3, "gru": 2.5e-3, "rnn": 2.5e-3}
_TRANSFORMER_ADAMW_RATE, _TRANSFORMER_ADAMW_WEIGHT_DECAY = 2e-3, 0.1
_RATE_WIDTH, _MIN_RATE_WIDTH = 256, 64
_WARM_START_RATE_SHARE = 1 / 3
_WARMUP_RATIO, _MIN_WARMUP_STEPS = 0.05, 20
"""With a shorter warm-up, an LSTM's loss rises far above that of guessing: a second moment of few steps is noise."""
_MAX_DROPOUT, _DROPOUT_PER_DOUBLED_EPOCHS, _EPOCHS_OF_DROPOUT = 0.4, 0.06, 20
"""A text that is read more often is learned by heart sooner."""
_MIN_PATIENCE, _MAX_PATIENCE, _PATIENCE_PER_EPOCH = 3, 100, 0.2
_SMALL_TOKENS, _BASE_TOKENS = 10_000, 20_000_000
_MAX_TRIAL_SECONDS, _TRIAL_SHARE, _STEPS_SHARE = 12, 0.1, 0.85
"""With `minutes`: the measurement before the run takes at most so many seconds, and at most this share of the time; of
the rest, the steps have this share."""
_MIN_STEPS = 1000
"""Steps that such a training takes in its time, unless they would have few tokens."""
_ENOUGH_EPOCHS_SHARE, _FULL_TOKENS_PER_WEIGHT, _MAX_WEIGHTS_PER_TOKEN = 0.35, 100, 100
"""With `minutes`: a model with this share of the usual epochs is better than a smaller one with more. A model has
learned all it can from so many tokens per weight. One with more weights per training token is too large for the text.
"""


class TextCharacters(NamedTuple):
    """The characters of a training split, and the different ones among them; estimated from a sample."""

    total: int
    kinds: int

    def __str__(self) -> str:
        return f"{float(f'{self.total:.2g}'):,.0f} training characters"


def chosen_method(family: ModelFamily, text: TextCharacters) -> ChosenValue | None:
    """Return the method of a tokenizer that a request leaves out; None if the text does not decide it."""
    usual = default_tokenizer_method(family)
    if usual not in ("bpe", "word"):
        return None
    if text.total >= _LONG_UNITS_FROM_CHARACTERS:
        return ChosenValue(field="tokenizer.method", value=usual, reason=f"usual for {family}: {text}")
    return ChosenValue(field="tokenizer.method", value="char", reason=f"better with a short text: {text}")


def chosen_vocab_size(config: SubwordConfig, text: TextCharacters) -> ChosenValue:
    """Return the vocabulary of a subword tokenizer: its characters, and as many subwords as the text can teach."""
    characters = 2 * text.kinds if config.method == "wordpiece" else text.kinds
    characters += len(BYTE_NAMES) if has_byte_fallback(config) else 0
    size = max(characters + _MIN_SUBWORDS, min(_MAX_VOCABULARY, text.total // _CHARACTERS_PER_SUBWORD))
    return ChosenValue(field="tokenizer.vocab_size", value=size, reason=f"for {text}")


class TrainingText(NamedTuple):
    """The training split in tokens, and the size of its vocabulary; known, or estimated from a sample."""

    tokens: int
    vocab_size: int

    def __str__(self) -> str:
        return f"{float(f'{self.tokens:.2g}'):,.0f} training tokens"


BY_SPEED = "until the worker has measured its speed"
PACE_SIZES = ("tiny", "small", "base")
"""The presets that are measured for a training that has `minutes`, in ascending order."""


class Candidate(NamedTuple):
    """A training whose speed was measured."""

    size: ModelSize | None
    weights: int
    step_tokens: int
    tokens_per_second: float


def _reason(pace: Pace, text: TrainingText) -> str:
    passes = pace.tokens / max(1, text.tokens)
    return f"{pace.minutes:g} minutes at {1000 * pace.step_seconds:.2g} ms a step: {passes:.2g} epochs"


def trial_seconds(minutes: float) -> float:
    """Return the seconds in which a worker measures a run that has `minutes` before it trains."""
    return min(_MAX_TRIAL_SECONDS, _TRIAL_SHARE * 60 * minutes)


def best_pace(candidates: Sequence[Candidate], text: TrainingText, minutes: float) -> Pace:
    """Return the pace of the model that is best after this time, of candidates in ascending order of their sizes.

    A larger one is better once it reads the text often enough, or the smaller one has too few weights to learn more,
    unless it is too large for the text.
    """
    seconds, tokens = _STEPS_SHARE * (60 * minutes - trial_seconds(minutes)), max(1, text.tokens)
    enough = _ENOUGH_EPOCHS_SHARE * _usual_epochs(text) * tokens
    best, *larger = candidates
    for one in larger:
        is_full = best.tokens_per_second * seconds > _FULL_TOKENS_PER_WEIGHT * best.weights
        is_trained = one.tokens_per_second * seconds >= enough
        if one.weights > _MAX_WEIGHTS_PER_TOKEN * tokens or not (is_full or is_trained):
            break
        best = one
    return Pace(
        minutes=minutes,
        size=best.size,
        tokens=best.tokens_per_second * seconds,
        step_seconds=best.step_tokens / best.tokens_per_second,
    )


def chosen_size(text: TrainingText, standard: Standard | None, pace: Pace | None = None) -> ChosenValue:
    """Return the preset of a model's sizes that a text can train, or that of a standard model or a pace."""
    if pace is not None and pace.size is not None:
        return ChosenValue(field="model_size", value=pace.size, reason=_reason(pace, text))
    if standard is not None:
        return ChosenValue(field="model_size", value=_STANDARD_SIZES[standard], reason=f"of the standard {standard}")
    size = "tiny" if text.tokens < _SMALL_TOKENS else "small" if text.tokens < _BASE_TOKENS else "base"
    return ChosenValue(field="model_size", value=size, reason=f"for {text}")


def is_long_enough(standard: Standard, text: TrainingText) -> bool:
    """Return True if a text gives a standard model 200 steps an epoch, so that its fixed values hold."""
    rows, length = (value_at(STANDARDS[standard], name) for name in ("batch_size", "max_seq_len"))
    return isinstance(rows, int) and isinstance(length, int) and text.tokens >= _STEPS_PER_EPOCH * rows * length


class RowLength(NamedTuple):
    tokens: int
    reason: str


def row_length(text: TrainingText, architecture: Architecture) -> RowLength:
    """Return the tokens of a training row, fewer for a short text, so that there are many rows."""
    usual, why = _ROW_TOKENS, "usual for a line"
    if architecture == "gpt2" and text.tokens < _SHORT_ROWS_BELOW_TOKENS:
        usual, why = _SHORT_ROW_TOKENS, f"gpt2 learns its positions sooner from short rows: {text}"
    most = max(_MIN_ROW_TOKENS, 1 << max(1, text.tokens // _ROWS_IN_TEXT).bit_length() - 1)
    return RowLength(usual, why) if most >= usual else RowLength(most, f"{_ROWS_IN_TEXT} rows or more from {text}")


class Basis(NamedTuple):
    """The request, model and text that the rules choose values for."""

    given: Mapping[str, object]
    """The fields of the request."""
    model: ModelConfig
    text: TrainingText
    standard: Standard | None
    """The standard model of the training, if its text is long enough."""
    pace: Pace | None = None
    """What a worker has measured for a training that has `minutes`."""


def chosen_values(basis: Basis) -> list[ChosenValue]:
    """Return the values that a request leaves out, each with its reason; of a model, its dropout."""
    if isinstance(basis.model, NgramConfig):
        return []
    fixed: Mapping[str, _Value] = {} if basis.standard is None else STANDARDS[basis.standard]
    rules = _Rules(basis, fixed)
    why = f"of the standard {basis.standard}"
    found = [ChosenValue(field=field, value=value, reason=why) for field, value in fixed.items()]
    found += [choice for choice in rules.choices() if choice.field not in fixed]
    return [choice for choice in found if value_at(basis.given, choice.field) is None]


class _Rules:
    """The rules of one training; later ones look at the values that earlier ones have chosen."""

    def __init__(self, basis: Basis, fixed: Mapping[str, _Value]) -> None:
        self._basis, self._fixed = basis, fixed
        self._kind = _RECURRENT if isinstance(basis.model, RnnConfig) else _TRANSFORMER
        self._tokens = max(1, basis.text.tokens)
        name = value_at(basis.given, "optimizer.name")
        self._is_short = self._tokens < self._kind.muon_from_tokens
        self._takes_muon = name is None and basis.standard is None and not self._is_short
        self._has_muon = name == "muon" or self._takes_muon
        is_fast = self._has_muon and basis.model.architecture in ("llama", "qwen")
        self._epochs_share = _ROTARY_EPOCHS_SHARE if is_fast else 1

    def _number(self, field: str, rule: float) -> float:
        """Return the number of a field that the request or a standard model gives, or that of a rule."""
        given = value_at(self._basis.given, field)
        value = self._fixed.get(field) if given is None else given
        return value if isinstance(value, int | float) else rule

    def choices(self) -> Iterator[ChosenValue]:
        step_tokens = yield from self._step()
        epochs = yield from self._length()
        step_tokens *= self._number("gradient_accumulation", 1)
        steps = self._steps(step_tokens, epochs)
        yield from self._optimizer(steps)
        yield from self._dropout(steps * step_tokens / self._tokens)
        given = self._basis.given
        if value_at(given, "early_stopping.enabled") is not False and value_at(given, "max_steps") is None:
            patience = _PATIENCE_PER_EPOCH * self._number("num_epochs", epochs)
            patience = round(_clamped(patience, _MIN_PATIENCE, _MAX_PATIENCE))
            why = "a training that no longer learns ends; the weights of its best validation are kept"
            yield ChosenValue(field="early_stopping.enabled", value=True, reason=why)
            why = "a fifth of the epochs, at least 3"
            yield ChosenValue(field="early_stopping.patience", value=patience, reason=why)

    def _step(self) -> Generator[ChosenValue, None, float]:
        """Choose the rows of a batch, and return its tokens."""
        text, pace = self._basis.text, self._basis.pace
        by_rule = row_length(text, self._basis.model.architecture)
        yield ChosenValue(field="max_seq_len", value=by_rule.tokens, reason=by_rule.reason)
        length = round(self._number("max_seq_len", by_rule.tokens))
        in_step = self._tokens / _STEPS_PER_EPOCH
        in_step = in_step if pace is None else min(in_step, pace.tokens / _MIN_STEPS)
        rows = max(1, round(_clamped(in_step, _MIN_STEP_TOKENS, _MAX_STEP_TOKENS) / length))
        steps = max(1, round(self._tokens / (rows * length)))
        yield ChosenValue(field="batch_size", value=rows, reason=f"about {steps:,} steps an epoch from {text}")
        return self._number("batch_size", rows) * length

    def _length(self) -> Generator[ChosenValue, None, int]:
        """Choose the number of epochs, and return it."""
        given, text, pace = self._basis.given, self._basis.text, self._basis.pace
        usual = _usual_epochs(text) * self._epochs_share
        if self._is_short:
            usual = max(usual, min(_SHORT_TEXT_SHARE * usual, _MOST_OF_SHARE))
        epochs = max(1, round(usual))
        steps, minutes = value_at(given, "max_steps"), value_at(given, "minutes")
        if minutes is not None:
            why = BY_SPEED if pace is None else _reason(pace, text)
            yield ChosenValue(field="num_epochs", value=epochs, reason=f"at most; {why}")
        elif isinstance(steps, int):
            yield ChosenValue(field="num_epochs", value=steps, reason="as many as `max_steps` can need")
        else:
            yield ChosenValue(field="num_epochs", value=epochs, reason=f"a short text is read more often: {text}")
        return epochs

    def _steps(self, step_tokens: float, epochs: int) -> float:
        """Return the steps of the training, at most."""
        pace, most = self._basis.pace, value_at(self._basis.given, "max_steps")
        if pace is not None:
            return min(epochs * self._tokens, pace.tokens) / step_tokens
        if isinstance(most, int):
            return min(self._number("num_epochs", math.inf) * self._tokens / step_tokens, most)
        return self._number("num_epochs", epochs) * self._tokens / step_tokens

    def _optimizer(self, steps: float) -> Iterator[ChosenValue]:
        """Choose the optimizer, and the learning rate with its schedule for so many steps, about."""
        given, kind, model = self._basis.given, self._kind, self._basis.model
        if self._takes_muon:
            why = f"learns most per step of a {kind.name}"
            if kind.muon_from_tokens:
                why = f"learns most per step of a {kind.name} from {self._basis.text}"
            yield ChosenValue(field="optimizer.name", value="muon", reason=why)
        rate = _ADAMW_RATES.get(model.architecture, _TRANSFORMER_ADAMW_RATE)
        if self._has_muon:
            rate, why = kind.muon_rate, f"for a {kind.name} with muon"
            yield ChosenValue(field="optimizer.weight_decay", value=kind.muon_weight_decay, reason=why)
        elif kind is _TRANSFORMER and value_at(given, "optimizer.name") == "adamw":
            decay, why = _TRANSFORMER_ADAMW_WEIGHT_DECAY, "for a transformer with adamw"
            yield ChosenValue(field="optimizer.weight_decay", value=decay, reason=why)
        rate *= math.sqrt(_RATE_WIDTH / max(_MIN_RATE_WIDTH, model.hidden_size))
        why = f"{kind.name} of width {model.hidden_size}"
        if value_at(given, "init_from_run_id") is not None:
            rate, why = rate * _WARM_START_RATE_SHARE, f"a third of that of a {why}, because its weights are trained"
        yield ChosenValue(field="learning_rate", value=float(f"{rate:.2g}"), reason=why)
        yield ChosenValue(field="lr_schedule", value="cosine", reason="a rate that falls to the minimum ends lower")
        if value_at(given, "warmup_steps") is None and value_at(given, "warmup_ratio") is None:
            why = "a high rate needs a warm-up"
            if _WARMUP_RATIO * steps >= _MIN_WARMUP_STEPS:
                yield ChosenValue(field="warmup_ratio", value=_WARMUP_RATIO, reason=why)
            else:
                yield ChosenValue(field="warmup_steps", value=_MIN_WARMUP_STEPS, reason=f"{why}, however short it is")

    def _dropout(self, times_read: float) -> Iterator[ChosenValue]:
        model, kind = self._basis.model, self._kind
        per_token = model.parameter_count(0) / self._tokens
        dropout = kind.dropout + kind.dropout_per_doubling * math.log2(per_token)
        dropout += _DROPOUT_PER_DOUBLED_EPOCHS * math.log2(times_read / self._epochs_share / _EPOCHS_OF_DROPOUT)
        dropout = round(_clamped(dropout, 0.0, _MAX_DROPOUT), 2)
        weights, epochs = (float(f"{number:.2g}") for number in (per_token, times_read))
        why = f"{weights:g} weights of hidden layers per training token, {epochs:g} epochs"
        for field in model.dropouts:
            yield ChosenValue(field=f"model.{field}", value=dropout, reason=why)
        if value_at(self._basis.given, "model_family") == "char_lstm":
            yield ChosenValue(field="model.dropout_places", value="all", reason="with a short text better than between")


def _clamped(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)


def _usual_epochs(text: TrainingText) -> float:
    return _clamped(_EPOCHS_OF_A_MILLION * math.pow(1e6 / max(1, text.tokens), _EPOCHS_POWER), 1, _MAX_EPOCHS)
