"""Notes about the losses of a run: counting, unknown text, the looks at its test split."""

from collections.abc import Iterator, Mapping, Sequence

from trainer.contracts.baselines import Baseline
from trainer.contracts.looks import LookCount
from trainer.contracts.reports import Cell, Estimate, Note, Quantity, counted_note, joined, note
from trainer.contracts.runs import KnownFigures, RunStatus, has_unknown_text, is_largely_unknown
from trainer.contracts.units import perplexity
from trainer.reports.report_text import ENGLISH

SEEDLESS = note("n-grams do not depend on the seed: more seeds are no more evidence.")


def ngram_note(baseline: Baseline) -> Note:
    """Return the name of the n-grams of tokens."""
    return _ngram(baseline.order)


def stronger_note(baseline: Baseline) -> Note:
    """Return the name of the stronger n-grams, with which a model is compared."""
    characters = baseline.characters
    if characters is None:
        return ngram_note(baseline)
    if baseline.is_of_characters:
        return note("{ngram} of characters", ngram=_ngram(characters.order))
    return note("{ngram} of tokens", ngram=ngram_note(baseline))


def counted_rows(baseline: Baseline) -> Iterator[tuple[Note, Cell, Cell]]:
    """Yield the name, the loss per token and the bits per character of each n-gram."""
    characters, ngram = baseline.characters, ngram_note(baseline)
    name = ngram if characters is None else note("{ngram} of tokens", ngram=ngram)
    figures = baseline.ngram_loss, baseline.ngram_bits_per_char
    loss, bits = (shown_figure(one, baseline.unknown_char_share, has_known=False) for one in figures)
    yield name, loss, bits
    if characters is not None:
        yield note("{ngram} of characters", ngram=_ngram(characters.order)), None, characters.bits_per_char


def counts_note(baseline: Baseline) -> Note:
    """Return the losses per character of the n-grams, the stronger one first."""
    share = baseline.unknown_char_share
    shown = note(
        "{ngram}: {loss} {unit} per character",
        ngram=stronger_note(baseline),
        loss=_per_char(baseline.counted_bits_per_char, share),
    )
    characters = baseline.characters
    if characters is None:
        return shown
    weaker, bits = note("{ngram} of tokens", ngram=ngram_note(baseline)), baseline.ngram_bits_per_char
    if not baseline.is_of_characters:
        weaker, bits = note("{ngram} of characters", ngram=_ngram(characters.order)), characters.bits_per_char
    return note("{stronger}, {weaker} {loss}", stronger=shown, weaker=weaker, loss=_per_char(bits, share))


def _ngram(order: int) -> Note:
    return note("unigram") if order == 1 else note("{order}-gram", order=order)


def counting_note(baseline: Baseline) -> Note:
    """Return the losses of the n-grams and of the model, and its difference from the stronger one with its interval."""
    difference = baseline.difference
    parts = [
        note(
            "{counts}; this model {own} ({difference})",
            counts=counts_note(baseline),
            own=_per_char(baseline.bits_per_char, baseline.unknown_char_share),
            difference=_change(difference),
        )
    ]
    if baseline.margin is not None:
        low, high = _change(difference - baseline.margin), _change(difference + baseline.margin)
        parts.append(note(", 95 % interval {low} to {high}", low=low, high=high))
    if is_largely_unknown(baseline.unknown_char_share) and baseline.known_loss is not None:
        parts.append(
            note(
                "; over known tokens: {ngram} perplexity {its}, this model {own}",
                ngram=ngram_note(baseline),
                its=_perplexity(baseline.known_ngram_loss),
                own=_perplexity(baseline.known_loss),
            )
        )
    return joined([*parts, *_about_counting(baseline)])


def _about_counting(baseline: Baseline) -> Iterator[Note]:
    """Yield how much of the text was counted, and of which ancestors."""
    characters = baseline.characters
    if baseline.is_of_sample and characters is not None and baseline.is_of_characters:
        counted, complete = characters.counted_characters, characters.train_characters
        yield note("; counted in {counted} of {all} characters", counted=counted, all=complete)
    elif baseline.is_of_sample:
        yield note("; counted in {counted} of {all} tokens", counted=baseline.counted_tokens, all=baseline.train_tokens)
    if baseline.ancestors:
        yield note("; counted with the training text of {runs}", runs=_names(baseline.ancestors))
    if baseline.uncounted:
        yield note("; counted without the training text of {runs}", runs=_names(baseline.uncounted))


def _names(runs: Sequence[str]) -> Note:
    return joined([note("`{run}`", run=run) for run in runs], ", ")


def counting_notes(baseline: Baseline) -> Iterator[Note]:
    """Yield `counting_note`, and the warning about a model that is not better than counting, with what to do."""
    yield counting_note(baseline)
    yield from (note("Warning: {text}", text=note(text)) for text in baseline.warnings())


def counting_of_several(baselines: Mapping[str, Baseline]) -> Iterator[Note]:
    """Yield each n-gram once with the models, by their names, that have its text and tokenizer, then warnings."""
    counts: dict[str, Note] = {}
    models = dict[str, list[Note]]()
    for name, one in baselines.items():
        about = joined([counts_note(one), *_about_counting(one)])
        key = ENGLISH.note(about)
        counts[key] = about
        models.setdefault(key, []).append(
            note(
                "{model} {loss} ({difference})",
                model=name,
                loss=_per_char(one.bits_per_char, one.unknown_char_share),
                difference=_change(one.difference),
            )
        )
    for key, about in counts.items():
        yield note("{counts}; {models}", counts=about, models=joined(models[key], ", "))
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
    """Return the share of unknown characters, with a warning if it is too large to compare figures."""
    share = Quantity(value=unknown_char_share, form="share")
    if has_unknown_text(unknown_char_share):
        return note("{share} of the characters; (!) figures are too low to compare", share=share)
    return note("{share} of the characters", share=share)


def known_note(known: KnownFigures) -> Note:
    """Return the figures over known tokens."""
    return note(
        "Over known tokens: {loss} {unit} per token, perplexity {perplexity}, top-1 {top1}, top-5 {top5}",
        loss=Quantity(value=known.loss, form="loss"),
        perplexity=_perplexity(known.loss),
        top1=Quantity(value=known.top1_accuracy, form="share"),
        top5=Quantity(value=known.top5_accuracy, form="share"),
    )


def shown_figure(value: float | None, unknown_char_share: float | None, *, has_known: bool) -> Cell:
    """Return a figure, marked where unknown tokens make it too low to compare.

    None where most of it is that, and there is one over known tokens in its place.
    """
    if value is None or (has_known and is_largely_unknown(unknown_char_share)):
        return None
    return Estimate(value=value, is_marked=True) if has_unknown_text(unknown_char_share) else value


def describe_unknown(unknown_char_share: float | None) -> str | None:
    """Return `unknown_note` in English; None if the share is not known."""
    return None if unknown_char_share is None else ENGLISH.note(unknown_note(unknown_char_share))


def marked(value: Quantity | Note, unknown_char_share: float | None) -> Note:
    """Return a figure, with a mark if unknown tokens make it too low to compare."""
    return note("{value} (!)" if has_unknown_text(unknown_char_share) else "{value}", value=value)


def _per_char(bits: float, unknown_char_share: float) -> Note:
    return marked(Quantity(value=bits, form="per_char"), unknown_char_share)


def _perplexity(loss_nats: float | None) -> Quantity:
    return Quantity(value=perplexity(loss_nats or 0.0), form="perplexity")


def _change(bits: float) -> Quantity:
    return Quantity(value=bits, form="per_char_change")
