"""Notes about leaks: how much of a held-out split, or of another text, a run has read in training, and what to do."""

from collections.abc import Iterator

from trainer.contracts.intervals import MIN_LINES, MIN_NEIGHBOURS
from trainer.contracts.reports import Note, Quantity, counted_note, joined, note
from trainer.contracts.runs import (
    LEAK_CHARACTERS,
    LEAK_WORDS,
    MAX_LEAK_SHARE,
    MAX_NEAR_SHARE,
    EffectiveRequest,
    HeldOutSplit,
    Leak,
    Leaks,
    Shares,
)
from trainer.reports.report_text import ENGLISH


def shares_note(shares: Shares) -> Note:
    """Return the shares that are known."""
    known = [note("{share} of the lines", share=_share(shares.lines))]
    if shares.has_near_lines:
        plain = _share(shares.plain_lines or 0.0)
        known.append(note("{share} of the lines without case, punctuation and spaces", share=plain))
    if shares.covered:
        covered = _share(shares.covered)
        known.append(note("{share} of the words (in complete lines)", share=covered))
    if shares.words is not None:
        words = _share(shares.words)
        known.append(note("{share} of the {length}-grams of words", share=words, length=LEAK_WORDS))
    if shares.characters is not None:
        characters = _share(shares.characters)
        known.append(note("{share} of the {length}-grams of characters", share=characters, length=LEAK_CHARACTERS))
    *first, last = known
    return note("{shares} and {last}", shares=joined(first, ", "), last=last) if first else last


def leak_notes(
    leak: Leak, text: Note, training_text: Note, remedy: Note | None = None, *, of_units: bool = False
) -> Iterator[Note]:
    """Yield notes about a text, by its name: what of it was read in training, and what was not searched.

    `of_units`: the surprisals of its units are used, and not its loss.
    """
    if leak.is_large:
        where = training_text
        for name in leak.ancestors:
            where = note("{text} or in the training text of `{name}`", text=where, name=name)
        shares = shares_note(leak)
        if of_units:
            warning = note(
                "{shares} of {text} stand in {where}: surprisals are lower than in unseen text.",
                shares=shares,
                text=text,
                where=where,
            )
        else:
            warning = note(
                "{shares} of {text} stand in {where}: its loss says little about unseen text.",
                shares=shares,
                text=text,
                where=where,
            )
        yield warning if remedy is None else joined((warning, remedy), " ")
    if leak.validation is not None and leak.validation.is_large:
        shares = shares_note(leak.validation)
        if of_units:
            yield note(
                "{shares} of {text} stand in the validation text, which chooses the weights: surprisals are a little"
                " too low.",
                shares=shares,
                text=text,
            )
        else:
            yield note(
                "{shares} of {text} stand in the validation text, which chooses the weights: its loss is a little too"
                " low.",
                shares=shares,
                text=text,
            )
    for name in leak.unsearched:
        yield note(
            "The training text of `{name}` is deleted or has changed, so {text} was not searched for in it.",
            name=name,
            text=text,
        )


def unit_leak_notes(leak: Leak | None, text: Note, run_id: str | None = None) -> Iterator[Note]:
    """Yield the notes about a text whose surprisals are used; none if it was not searched for."""
    if leak is not None:
        where = note("the training text of the run") if run_id is None else training_text_note(run_id)
        yield from leak_notes(leak, text, where, of_units=True)


def split_note(split: str) -> Note:
    """Return the name of a split in a sentence."""
    return note("the {split} split", split=note(split))


def training_text_note(run_id: str) -> Note:
    """Return the name of the training text of a run in a sentence."""
    return note("the training text of `{name}`", name=run_id)


def held_out_notes(effective: EffectiveRequest, leaks: Leaks) -> Iterator[Note]:
    """Yield notes on held-out splits that are small or of which much was trained on, with what to do."""
    yield from _small_split(effective, leaks)
    if effective.tokenizer_saw_held_out:
        yield note(
            "The tokenizer was trained on held-out text of this run: it knows more of it than of unseen text."
            " Train the tokenizer with the split of the run, or let the run train its own."
        )
    for split, leak in leaks.items():
        yield from leak_notes(leak, split_note(split), note("the training split"), _remedy(effective, split, leak))


def leak_warnings(effective: EffectiveRequest, leaks: Leaks) -> tuple[str, ...]:
    """Return the notes on the held-out splits in English, for records."""
    return tuple(map(ENGLISH.note, held_out_notes(effective, leaks)))


def _small_split(effective: EffectiveRequest, leaks: Leaks) -> Iterator[Note]:
    """Yield a warning if the split whose loss is reported, the test split if there is one, has no interval."""
    split: HeldOutSplit = "test" if "test" in leaks else "validation"
    n_lines = None if split not in leaks else leaks[split].n_lines
    least = MIN_LINES if effective.draws_lines(split) else MIN_NEIGHBOURS
    if n_lines is not None and n_lines < least:
        yield note(
            "The {split} split has {lines}: its loss has no interval, which takes {least} or more, and says little"
            " about other text. Hold out more lines.",
            split=note(split),
            lines=counted_note(n_lines, "line"),
            least=least,
        )


def _remedy(effective: EffectiveRequest, split: HeldOutSplit, leak: Leak) -> Note:
    if leak.ancestors:
        return note(
            "Hold out text that none of these runs has trained on: equal corpora and splits hold out equal lines."
        )
    own = {"validation": effective.validation_corpus, "test": effective.test_corpus}
    if own[split] is not None:
        return note("Remove training text from `{field}`.", field=f"{split}_corpus")
    if leak.lines > MAX_LEAK_SHARE and effective.documents == "line" and effective.split_by != "line":
        return note("Set `split_by: line`, which keeps equal lines together, or remove repeated lines from the corpus.")
    if (leak.plain_lines or 0.0) > MAX_NEAR_SHARE and leak.lines <= MAX_LEAK_SHARE:
        return note("Keep one of the lines that differ in case, punctuation and spaces only, or write them alike.")
    return note("Remove repeated text from the corpus.")


def _share(share: float) -> Quantity:
    return Quantity(value=share, form="share")
