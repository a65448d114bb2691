"""The defaults of a training against a random search: a table and a picture for docs/defaults.md.

    python -m benchmarks.defaults [--texts FOLDER] [--cells GROUP …] [--only PATTERN] [--list] [FOLDER]

A cell of the grid is a family, a size, a tokenizer and a text. Nothing else is given in its default. The search draws
rate, batch, dropout, weight decay, schedule and optimizer, and looks at the validation split only: see `Search` of
defaults_runs.py. The test split is read once, with the default.

Each run is saved when it ends, so the same command continues an interrupted grid. `--texts` is a folder with ug.txt,
tr.txt, tinyshakespeare.txt, wikitext-valid.txt and 5mb.txt; the other cells read the demo corpus. After each cell
`table.md` and `differences.png` are written to FOLDER. Exits 1 if the default is within `MAX_NATS` of the best in less
than `MIN_SHARE` of the cells, or more than `MAX_WORST_NATS` above it in one. With QUICK=1 in the environment it takes
minutes, for two cells that say nothing about the defaults.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib.figure import Figure

from benchmarks.defaults_runs import (
    GRID,
    QUICK_CELLS,
    QUICK_PLAN,
    RULE_TEXTS,
    Loss,
    Outcome,
    Run,
    RunFile,
    Search,
    Texts,
    mean_nats,
)
from benchmarks.growth_costs import quiet
from trainer.contracts.wording import counted

MAX_NATS, MAX_WORST_NATS, MIN_SHARE = 0.02, 0.05, 0.9
HEADER = (
    "| cell | default | best of search | default − best | default, test | n-gram, test | difference | best settings |",
    "|---|---|---|---|---|---|---|---|",
)
EXPLANATION = """
Losses are nats per token, in brackets bits per character. The validation losses of default and best are means over two
seeds. The test split was read once per cell, with the default of the first seed. `difference` is that of the default
from the n-gram in bits per character. Masked models have neither bits per character nor an n-gram.
"""
_GOOD, _LIMIT, _BAD = "#0072b2", "#8a8a8a", "#d55e00"
_WIDEST = 2.0
"""Larger differences are drawn as this."""


class _Options(argparse.Namespace):
    texts: Path | None
    cells: list[str] | None
    only: str
    lists: bool
    folder: Path


def main() -> int:
    groups: list[str] = list(GRID)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.defaults", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--texts", type=Path, metavar="FOLDER", help="folder of the texts that are not bundled")
    parser.add_argument("--cells", nargs="+", choices=groups, metavar="GROUP", help=f"of {', '.join(groups)}")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="cells with such a name, as 'lstm tiny * demo'")
    parser.add_argument("--list", dest="lists", action="store_true", help="list the cells, and train nothing")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("defaults"), help="for runs, table and picture")
    options = parser.parse_args(namespace=_Options())
    quiet()
    grid = {group: GRID[group] for group in options.cells or groups}
    if os.environ.get("QUICK") == "1":
        grid = {"quick": (QUICK_PLAN, QUICK_CELLS)}
    outcomes: list[Outcome] = []
    with TemporaryDirectory() as data:
        texts = Texts(options.texts, Path(data))
        for group, (plan, cells) in grid.items():
            chosen = [cell for cell in cells if fnmatch(cell.name, options.only)]
            missing = texts.add_all(cell.text for cell in chosen)
            for text in missing:
                print(f"{group}: the cells of {text} are left out, `--texts` has no {text}.txt", flush=True)
            chosen = [cell for cell in chosen if cell.text not in missing]
            if options.lists:
                print(*(f"{group}: {cell.name}, default and {plan.settings} settings" for cell in chosen), sep="\n")
                continue
            file = RunFile(options.folder / f"{group}.jsonl")
            for cell in chosen:
                outcomes.append(Search(cell, plan, texts, file, report).outcome())
                write(outcomes, options.folder)
    if not outcomes:
        return 0
    print(*table(outcomes), sep="\n")
    print(*summaries(outcomes), sep="\n")
    return 0 if meets_goals(outcomes) else 1


def report(run: Run) -> None:
    """Print a run that has ended."""
    loss = "diverged" if run.validation is None else f"{run.validation.nats:.4f} nats"
    which = f"{run.cell}, seed {run.seed}, {counted(run.epochs, 'epoch')}"
    print(f"{which}: {loss} after {run.seconds:.0f} s; {given(run)}", flush=True)


def given(run: Run) -> str:
    """Return the fields in which a run differs from the default, without its length."""
    shown = [f"{field}={value}" for field, value in run.given.items() if field != "num_epochs"]
    return ", ".join(shown) or "default"


def write(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write the table and the picture of the cells so far."""
    lines = [*summaries(outcomes), EXPLANATION, *table(outcomes)]
    (folder / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    chart(outcomes).savefig(folder / "differences.png", dpi=110)


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the lines of the Markdown table, a row per cell."""
    return [*HEADER, *map(_row, outcomes)]


def _row(outcome: Outcome) -> str:
    test, bits = outcome.default[0].test, outcome.difference_from_ngram_bits
    cells = [
        outcome.cell.name,
        _validation(outcome.default),
        _validation(outcome.best),
        f"{outcome.difference_nats:+.3f}",
        _shown(None if test is None else test.model),
        _shown(None if test is None else test.ngram),
        "" if bits is None else f"{bits:+.3f}",
        given(outcome.best[0]),
    ]
    return f"| {' | '.join(cells)} |"


def _validation(runs: Sequence[Run]) -> str:
    """Return the mean validation loss over the seeds; bits per character are in proportion to nats."""
    first, nats = runs[0].validation, mean_nats(runs)
    if first is None or not isfinite(nats):
        return "diverged"
    bits = first.bits_per_char
    return _shown(Loss(nats=nats, bits_per_char=None if bits is None else bits / first.nats * nats))


def _shown(loss: Loss | None) -> str:
    if loss is None:
        return ""
    return f"{loss.nats:.3f}" if loss.bits_per_char is None else f"{loss.nats:.3f} ({loss.bits_per_char:.3f})"


def summaries(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the line on all cells, and one on each half of the texts."""
    halves = {
        "": outcomes,
        "on texts that the rules may be made on: ": [each for each in outcomes if each.cell.text in RULE_TEXTS],
        "on the other texts: ": [each for each in outcomes if each.cell.text not in RULE_TEXTS],
    }
    return [f"{title}{_summary(half)}" for title, half in halves.items() if half]


def _summary(outcomes: Sequence[Outcome]) -> str:
    near = sum(outcome.difference_nats <= MAX_NATS for outcome in outcomes)
    worst = max(outcome.difference_nats for outcome in outcomes)
    return f"default within {MAX_NATS} nats of the best in {near} of {len(outcomes)} cells, worst {worst:+.3f}"


def meets_goals(outcomes: Sequence[Outcome]) -> bool:
    differences = [outcome.difference_nats for outcome in outcomes]
    near = sum(difference <= MAX_NATS for difference in differences)
    return near >= MIN_SHARE * len(differences) and max(differences) <= MAX_WORST_NATS


def chart(outcomes: Sequence[Outcome]) -> Figure:
    """Return a panel with the differences from the best of the search, and one with those from the n-gram."""
    figure = Figure(figsize=(11, 1.6 + 0.24 * len(outcomes)), layout="constrained", facecolor="white")
    names = [outcome.cell.name for outcome in outcomes]
    above_ngram = [outcome.difference_from_ngram_bits for outcome in outcomes]
    panels: tuple[tuple[str, float, list[float | None]], ...] = (
        ("default − best of the search (nats per token)", MAX_NATS, [each.difference_nats for each in outcomes]),
        ("default − n-gram (bits per character)", 0.0, above_ngram),
    )
    for place, (title, limit, values) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place)
        shown = [min(max(value or 0.0, -_WIDEST), _WIDEST) for value in values]  # one that diverged is infinite
        colours: list[str] = [_GOOD if value <= limit else _BAD for value in shown]
        axes.barh(names, shown, color=colours, height=0.7)
        axes.axvline(0, color="black", linewidth=0.8)
        for line in (MAX_NATS, MAX_WORST_NATS) if limit else ():
            axes.axvline(line, color=_LIMIT, linestyle="--", linewidth=1)
        axes.invert_yaxis()
        axes.set_title(title, fontsize=9.5)
        axes.tick_params(labelsize=8, labelleft=place == 1)
        axes.grid(visible=True, axis="x", color="#e3e3e3", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    sys.exit(main())
