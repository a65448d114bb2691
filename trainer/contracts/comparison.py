"""Runs beside one another: their numbers on one split or text, what compares of them, and whether one has got worse."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from pydantic_core import to_json

from trainer.contracts.base import Frozen, Identifier
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import EvalSplit
from trainer.contracts.models import ModelConfig, Objective, RnnConfig
from trainer.contracts.runs import CorpusRef, EffectiveRequest, EvalSummary, RunManifest

TOLERANCE = 0.01
"""The share by which a run's loss may be higher before it counts as worse."""
_NOT_COMPARED = {"label", "tags"}


class Measurement(NamedTuple):
    """A completed run, an evaluation of it, and how fast it trained."""

    manifest: RunManifest
    summary: EvalSummary
    tokens_per_second: float | None


class ComparedRun(Frozen):
    """A run's row of the table; nats per predicted token of its own tokenizer, accuracies as shares."""

    run_id: Identifier
    label: str | None
    model: str
    """As the field writes it: LSTM-2x512 has two layers of 512."""
    objective: Objective
    params: int | None
    loss: float
    perplexity: float
    bits_per_char: float | None
    top1_accuracy: float | None
    top5_accuracy: float | None
    tokens_per_second: float | None
    """Predicted tokens, in training."""


class Delta(Frozen):
    """The first run's numbers less another's; None where one of the two is not known."""

    loss: float
    perplexity: float
    bits_per_char: float | None
    top1_accuracy: float | None
    top5_accuracy: float | None
    params: int | None
    tokens_per_second: float | None


class Difference(Frozen):
    """A field of the two requests that is not the same, by its path; values are JSON, texts without their quotes."""

    field: str
    run: str
    other: str


class Against(Frozen):
    """The first run, judged by another one."""

    run_id: Identifier
    basis: Literal["loss", "bits_per_char"] | None
    """What compares of the two; None: nothing does, as `notes` says."""
    rise: float | None
    """By which share of the other's the first run's loss, on that basis, is higher; negative: it is better."""
    is_regression: bool
    delta: Delta
    is_on_one_text: bool
    """Whether both were measured on the same lines in the same form."""
    notes: tuple[str, ...]
    differences: tuple[Difference, ...]


class Comparison(Frozen):
    """A run beside others on a split of their own, or on one text."""

    split: EvalSplit | None
    """None: `dataset` was measured as a whole."""
    dataset: str | None
    tolerance: float
    runs: tuple[ComparedRun, ...]
    """First the one that is judged."""
    against: tuple[Against, ...]

    @property
    def is_passed(self) -> bool:
        """Whether the first run compares with every other one, and is worse than none."""
        return all(one.rise is not None and not one.is_regression for one in self.against)


def check_different(run_ids: Sequence[str]) -> None:
    """Refuse to compare a run with itself."""
    if len(set(run_ids)) < len(run_ids):
        raise AppError(ErrorCode.INVALID_INPUT, "A run is not compared with itself: give different runs.")


def summary_on(manifest: RunManifest, split: EvalSplit) -> EvalSummary:
    """The latest evaluation of a split of a run's own; raises EVAL_NOT_FOUND."""
    for summary in manifest.eval:
        if (summary.split, summary.dataset) == (split, None):
            return summary
    raise AppError(
        ErrorCode.EVAL_NOT_FOUND,
        f"The run '{manifest.run_id}' was not measured on its {split} split: `mt eval {manifest.run_id}"
        f" --split {split}` does that, where it has one.",
    )


def compare(
    measured: Sequence[Measurement],
    *,
    split: EvalSplit | None = None,
    dataset: str | None = None,
    tolerance: float = TOLERANCE,
) -> Comparison:
    """Judge the first run by each other one: on a split of their own, or else on one text that all were measured on."""
    first, *others = measured
    return Comparison(
        split=split,
        dataset=dataset,
        tolerance=tolerance,
        runs=tuple(_row(one) for one in measured),
        against=tuple(_against(first, other, split, tolerance) for other in others),
    )


def model_name(config: ModelConfig) -> str:
    """A model in short: LSTM-2x512, BiGRU-1x64, GPT2-12x768."""
    if not isinstance(config, RnnConfig):
        return f"{config.architecture.upper()}-{config.num_layers}x{config.hidden_size}"
    both = "Bi" if config.bidirectional else ""
    return f"{both}{config.architecture.upper()}-{config.num_layers}x{config.hidden_size}"


def verdict(one: Against, tolerance: float) -> str:
    """What is to be thought of a run beside another one, in a few words."""
    if one.rise is None:
        return "they do not compare"
    name = "loss" if one.basis == "loss" else "bits per character"
    if one.is_regression:
        return f"✗ regression: {name} {one.rise:+.2%}, more than {tolerance:.2%}"
    better = "better" if one.rise < 0 else "worse, as much as is allowed" if one.rise else "equal"
    return f"{better}: {name} {one.rise:+.2%}"


def _row(one: Measurement) -> ComparedRun:
    manifest, summary = one.manifest, one.summary
    effective = manifest.effective
    return ComparedRun(
        run_id=manifest.run_id,
        label=effective.label,
        model=model_name(effective.model),
        objective=effective.objective,
        params=None if manifest.model is None else manifest.model.params,
        loss=summary.loss,
        perplexity=summary.perplexity,
        bits_per_char=summary.bits_per_char,
        top1_accuracy=summary.top1_accuracy,
        top5_accuracy=summary.top5_accuracy,
        tokens_per_second=one.tokens_per_second,
    )


def _against(first: Measurement, other: Measurement, split: EvalSplit | None, tolerance: float) -> Against:
    row, others = _row(first), _row(other)
    basis, notes = _basis(first, other, split)
    rise: float | None = None
    if basis is not None:
        mine, its = (row.loss, others.loss) if basis == "loss" else (row.bits_per_char, others.bits_per_char)
        rise = _relative(mine, its)
    return Against(
        run_id=others.run_id,
        basis=basis,
        rise=rise,
        is_regression=rise is not None and rise > tolerance,
        delta=Delta(
            loss=row.loss - others.loss,
            perplexity=row.perplexity - others.perplexity,
            bits_per_char=_less(row.bits_per_char, others.bits_per_char),
            top1_accuracy=_less(row.top1_accuracy, others.top1_accuracy),
            top5_accuracy=_less(row.top5_accuracy, others.top5_accuracy),
            params=None if row.params is None or others.params is None else row.params - others.params,
            tokens_per_second=_less(row.tokens_per_second, others.tokens_per_second),
        ),
        is_on_one_text=_text(first.manifest.effective, split) == _text(other.manifest.effective, split),
        notes=tuple(notes),
        differences=tuple(_differences(first.manifest.effective, other.manifest.effective)),
    )


def _basis(
    first: Measurement, other: Measurement, split: EvalSplit | None
) -> tuple[Literal["loss", "bits_per_char"] | None, list[str]]:
    """What compares of two runs (DEC D44), and what is to be said of it."""
    one, two = first.manifest, other.manifest
    if one.effective.objective != two.effective.objective:
        return None, ["One continues texts, the other fills gaps: none of their numbers compare."]
    if _text(one.effective, split) != _text(two.effective, split):
        told = "They read the text in different forms" if split is None else f"Their {split} texts are not the same"
        return None, [f"{told}, so no number of one compares with the other's."]
    if _vocabulary(one) == _vocabulary(two):
        is_chance = one.effective.objective == "masked_lm" and _masking(one.effective) != _masking(two.effective)
        return "loss", [_OTHER_MASKS] if is_chance else []
    if one.effective.objective == "masked_lm":
        return None, ["Their tokenizers differ, so their losses are per different tokens and do not compare."]
    notes = [
        "Their tokenizers differ: losses, perplexities and accuracies are of different tokens,"
        " and only bits per character compare."
    ]
    for run in (first, other):
        share = run.summary.unknown_share
        if share:
            notes.append(
                f"`{run.manifest.run_id}` does not know {share:.1%} of its tokens, and pays less for these than for"
                " their characters: its bits per character are too low by that."
            )
    known = first.summary.bits_per_char is not None and other.summary.bits_per_char is not None
    return ("bits_per_char" if known else None), notes


def _vocabulary(manifest: RunManifest) -> str | None:
    """The hash of a tokenizer's file: two that were made apart may be the same."""
    return None if manifest.tokenizer is None else manifest.tokenizer.sha256


def _masking(effective: EffectiveRequest) -> tuple[int, float]:
    """What decides which tokens are masked."""
    return effective.seed, effective.mlm_probability


_OTHER_MASKS = "They were measured on different masked tokens: a part of the difference is chance."


def _text(effective: EffectiveRequest, split: EvalSplit | None) -> tuple[object, ...]:
    """What decides which lines a split has, and in which form they are read."""
    form = effective.tokenizer.normalization
    if split is None:
        return (form,)
    given: dict[EvalSplit, CorpusRef | None] = {
        "validation": effective.validation_corpus,
        "test": effective.test_corpus,
    }
    text = given[split]
    if text is not None:
        return form, text.sha256
    held_out = effective.holdout_fraction if effective.validation_corpus is None else 0.0
    test = effective.test_fraction if effective.test_corpus is None else 0.0
    return form, effective.corpus.sha256, effective.split_by, effective.seed, held_out, test


def _differences(one: EffectiveRequest, two: EffectiveRequest) -> Iterator[Difference]:
    """The fields that differ; of a text its name, or its hash where the name is the same."""
    mine, its = dict(_fields(one)), dict(_fields(two))
    for field in {**mine, **its}:
        here, there = mine.get(field, "null"), its.get(field, "null")
        name = field.removesuffix(".sha256") + ".name"
        is_renamed = field.endswith(".sha256") and mine.get(name) != its.get(name)
        if here != there and not is_renamed:
            yield Difference(field=field, run=here, other=there)


def _fields(effective: EffectiveRequest) -> Iterator[tuple[str, str]]:
    dumped: dict[str, object] = effective.model_dump(mode="json")
    for name, value in _flat(dumped):
        if name not in _NOT_COMPARED and not name.endswith(".bytes"):
            yield name, value if isinstance(value, str) else to_json(value).decode()


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict):
            block: Mapping[str, object] = value
            yield from _flat(block, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _relative(mine: float | None, its: float | None) -> float | None:
    """By which share one is more than the other; None where that is not known, or the other is 0."""
    return (mine - its) / its if mine is not None and its else None


def _less(mine: float | None, its: float | None) -> float | None:
    return None if mine is None or its is None else mine - its
