"""Runs with known metrics."""

from collections.abc import Mapping
from itertools import cycle, islice
from types import MappingProxyType

from tests.support.families import request_of
from tests.support.stories import run_record
from trainer.artifacts.runs import manifest_of
from trainer.config.presets import resolve
from trainer.contracts.intervals import LineLosses
from trainer.contracts.runs import CorpusRef, EvalSummary, ModelFacts, TokenizerFacts
from trainer.reports.comparison import Measurement


def line_losses(
    loss: float, spread: float | None = None, lines: int = 40, turns: int = 1, is_drawn: bool = True
) -> LineLosses:
    """Losses of lines of ten tokens and twenty characters: above and below a mean by turns of so many lines.

    By default by a hundredth of the difference from 2.0, so that this difference varies a little.
    """
    spread = (loss - 2) / 100 if spread is None else spread
    of_turns = [10 * (loss + spread)] * turns + [10 * (loss - spread)] * turns
    nats = islice(cycle(of_turns), lines)
    return LineLosses(nats=tuple(nats), tokens=(10,) * lines, chars=(20,) * lines, is_drawn=is_drawn)


SUMMARY = EvalSummary(
    split="test",
    loss=2.0,
    perplexity=7.389,
    bits_per_char=1.5,
    top1_accuracy=0.25,
    top5_accuracy=0.5,
    unknown_share=0.0,
    lines=line_losses(2.0),
)

TEXT, OTHER_TEXT, OWN_TEXT = (
    CorpusRef(name=name, sha256=sign * 64, bytes=1) for name, sign in (("text", "0"), ("text", "1"), ("own", "d"))
)


def measured(
    run_id: str,
    *,
    tokenizer: str = "a",
    family: str = "lstm",
    summary: dict[str, object] | None = None,
    **fields: object,
) -> Measurement:
    """A completed run with these fields in its request, of which texts are given whole, and what was measured of it."""
    return of_fields(run_id, fields, tokenizer, family, summary or {})


def of_fields(
    run_id: str,
    fields: dict[str, object],
    tokenizer: str = "a",
    family: str = "lstm",
    summary: Mapping[str, object] = MappingProxyType({}),
) -> Measurement:
    values = dict(fields)
    corpus, given_test = values.pop("corpus", TEXT), values.pop("test_corpus", None)
    assert isinstance(corpus, CorpusRef) and (given_test is None or isinstance(given_test, CorpusRef))
    effective = resolve(request_of(family, **values), corpus=corpus, validation_corpus=None, test_corpus=given_test)
    size = effective.model
    facts = ModelFacts(family=effective.model_family, size=None, params=100, tied=False, vocab_size=9, dims=size)
    left: dict[str, object] = {
        "run_id": run_id,
        "effective": effective,
        "model": facts,
        "tokenizer": TokenizerFacts(id=f"char-{run_id}", sha256=tokenizer * 64),
    }
    manifest = manifest_of(run_record(run_id), "completed").model_copy(update=left)
    renewed = SUMMARY.model_copy(update=summary)
    update: dict[str, object] = {"lines": summary.get("lines", line_losses(renewed.loss))}
    return Measurement(manifest, renewed.model_copy(update=update), 1000.0)
