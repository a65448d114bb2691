"""Notes about the losses of a run: counting, unknown text, the looks at its test split."""

from collections.abc import Iterator, Mapping

from trainer.contracts.baselines import Baseline
from trainer.contracts.looks import LookCount
from trainer.contracts.reports import Note, Quantity, counted_note, joined, note
from trainer.contracts.runs import RunStatus, has_unknown_text
from trainer.reports.report_text import ENGLISH

SEEDLESS = note("n-grams do not depend on the seed: more seeds are no more evidence.")


def ngram_note(baseline: Baseline) -> Note:
    """Return the name of the counted n-grams."""
    return note("unigram") if baseline.order == 1 else note("{order}-gram", order=baseline.order)


def counting_note(baseline: Baseline) -> Note:
    """Return the loss per character of the best n-gram, that of the model, and their difference with its interval."""
    difference = baseline.difference
    parts = [
        note(
            "{ngram}: {loss} {unit} per character; this model {own} ({difference})",
            ngram=ngram_note(baseline),
            loss=_per_char(baseline.ngram_bits_per_char),
            own=_per_char(baseline.bits_per_char),
            difference=_change(difference),
        )
    ]
    if baseline.margin is not None:
        low, high = _change(difference - baseline.margin), _change(difference + baseline.margin)
        parts.append(note(", 95 % interval {low} to {high}", low=low, high=high))
    if baseline.is_of_sample:
        parts.append(
            note("; counted in {counted} of {all} tokens", counted=baseline.counted_tokens, all=baseline.train_tokens)
        )
    return joined(parts)


def counting_notes(baseline: Baseline) -> Iterator[Note]:
    """Yield `counting_note`, and the warning about a model that is not better than counting, with what to do."""
    yield counting_note(baseline)
    yield from (note("Warning: {text}", text=note(text)) for text in baseline.warnings())


def counting_of_several(baselines: Mapping[str, Baseline]) -> Iterator[Note]:
    """Yield each n-gram once with the models, by their names, that have its text and tokenizer, then warnings."""
    alike = dict[tuple[int, float], dict[str, Baseline]]()
    for name, one in baselines.items():
        alike.setdefault((one.order, one.ngram_bits_per_char), {})[name] = one
    for of_ngram in alike.values():
        first = next(iter(of_ngram.values()))
        models = [
            note(
                "{model} {loss} ({difference})",
                model=name,
                loss=_per_char(one.bits_per_char),
                difference=_change(one.difference),
            )
            for name, one in of_ngram.items()
        ]
        yield note(
            "{ngram}: {loss} {unit} per character; {models}",
            ngram=ngram_note(first),
            loss=_per_char(first.ngram_bits_per_char),
            models=joined(models, ", "),
        )
    for name, one in baselines.items():
        yield from (note("{run}: {text}", run=name, text=note(text)) for text in one.warnings())


def test_note(run: RunStatus) -> Note | None:
    """Return how often the test split of a completed run was read, and whether it is locked; None without one."""
    looks = run.test_looks
    if looks is None:
        return None
    if run.test_access == "open" or run.test_loss is not None:
        return looks_note(looks) if looks.looks else None  # of a version that did not count
    return note("The test split is locked, so this run has no loss on it; {looks}", looks=looks_note(looks))


def looks_note(looks: LookCount) -> Note:
    """Return how often losses on a test text were read, and among how many trainings one may choose."""
    return note(
        "{looks} at this test text; {runs} trained on its corpus",
        looks=counted_note(looks.looks, "look"),
        runs=counted_note(looks.runs, "run"),
    )


def unknown_note(unknown_char_share: float) -> Note:
    """Return the share of unknown characters, with a warning if it is too large to compare numbers per character."""
    share = Quantity(value=unknown_char_share, form="share")
    if has_unknown_text(unknown_char_share):
        return note("{share} of the characters; (!) figures per character are too low to compare", share=share)
    return note("{share} of the characters", share=share)


def describe_unknown(unknown_char_share: float | None) -> str | None:
    """Return `unknown_note` in English; None if the share is not known."""
    return None if unknown_char_share is None else ENGLISH.note(unknown_note(unknown_char_share))


def _per_char(bits: float) -> Quantity:
    return Quantity(value=bits, form="per_char")


def _change(bits: float) -> Quantity:
    return Quantity(value=bits, form="per_char_change")
