"""The report of a tokenizer: its vocabulary, and its fit to text held out from its training."""

from trainer.contracts.reports import Cell, Note, Quantity, Report, Table, column, counted_note, note, section
from trainer.contracts.tokenizer_jobs import TokenizerStatus
from trainer.reports.run_notes import unknown_note


def tokenizer_report(status: TokenizerStatus) -> Report:
    """Return the report of a tokenizer; before the end of its training, its method alone."""
    rows: list[tuple[Cell, ...]] = [(note("method"), status.method)]
    if (stats := status.stats) is not None:
        rows += [
            (note("vocabulary"), counted_note(status.vocab_size or 0, "token")),
            (
                note("held out"),
                note(
                    "{lines}, {tokens}",
                    lines=counted_note(stats.holdout_lines, "line"),
                    tokens=counted_note(stats.token_count, "token"),
                ),
            ),
            (note("coverage"), _shares(stats.coverage, _of_characters(stats.char_coverage))),
            (note("unknown"), _shares(stats.oov_rate, unknown_note(stats.unknown_char_share))),
            (
                note("tokens"),
                note(
                    "{characters} per character, {words} per word",
                    characters=Quantity(value=stats.avg_tokens_per_char, form="thousandths"),
                    words=Quantity(value=stats.avg_tokens_per_word, form="thousandths"),
                ),
            ),
        ]
    title = note("{tokenizer}: {status}", tokenizer=status.tokenizer_id, status=status.status)
    table = Table(name="status", title=title, columns=(column(""), column("")), rows=tuple(rows))
    name = note("{tokenizer}", tokenizer=status.label or status.tokenizer_id)
    return Report(title=name, sections=tuple(section("Vocabulary", [table])))


def _shares(of_tokens: float, of_characters: Note) -> Note:
    share = Quantity(value=of_tokens, form="share")
    return note("{share} of tokens, {characters}", share=share, characters=of_characters)


def _of_characters(share: float) -> Note:
    return note("{share} of distinct characters", share=Quantity(value=share, form="share"))
