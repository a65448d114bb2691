"""The report of an unlock: the losses of its runs on their test splits, and the looks at these."""

from trainer.contracts.looks import Unlocked
from trainer.contracts.reports import Link, Report, Table, column, note, section
from trainer.reports.run_notes import looks_note


def unlock_report(unlocked: Unlocked) -> Report:
    """Return the report of an unlock."""
    columns = (
        *(column("run"), column("status"), column("test, {unit} per token", "loss")),
        *(column("test, {unit} per character", "per_char"), column("test, perplexity", "perplexity")),
    )
    rows = tuple(
        (
            Link(text=one.run_id, address=f"runs/{one.run_id}"),
            one.status if one.error is None else note("{text}", text=one.error.message),
            *(one.test_loss, one.bits_per_char, one.test_perplexity),
        )
        for one in unlocked.runs
    )
    table = Table(name="unlocked", title=note("Test splits that were read"), columns=columns, rows=rows)
    looks = map(looks_note, unlocked.looks)
    return Report(title=note("Unlock"), sections=tuple(section("Test", [table, *looks])))
