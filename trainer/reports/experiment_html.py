"""The report of an experiment as one HTML page without outside assets."""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

from trainer.contracts.base import Frozen
from trainer.contracts.experiments import ExperimentResult, ModelTables
from trainer.contracts.units import loss_number
from trainer.contracts.wording import counted
from trainer.reports.experiment_tables import (
    KIND_WORDS,
    MISSING,
    MODE_WORDS,
    HeatScale,
    PairRows,
    battery_caption,
    battery_spread_note,
    battery_table,
    correlation_line,
    correlation_rows,
    excess_scale,
    figure_rows,
    headline_rows,
    headline_seeds,
    listener_figures,
    pair_rows,
    seeds_note,
)

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<style>
:root {{ color-scheme: light dark; --back: #ffffff; --text: #1b1f26; --quiet: #525b6a; --line: #c9d0da }}
@media (prefers-color-scheme: dark) {{
  :root {{ --back: #1e2126; --text: #e6e9ee; --quiet: #a7b0be; --line: #454c57 }}
}}
body {{ background: var(--back); color: var(--text); font: 16px/1.5 system-ui, sans-serif; margin: 0 auto;
  max-width: 64rem; padding: 1rem }}
h1 {{ font-size: 1.6rem }}
h2 {{ font-size: 1.2rem; margin-top: 2rem }}
.table {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0.5rem 0 }}
caption {{ color: var(--quiet); padding: 0.3rem 0; text-align: left }}
th, td {{ border: 1px solid var(--line); padding: 0.25rem 0.5rem; text-align: right; white-space: nowrap }}
th {{ font-weight: 600 }}
td small {{ display: block }}
td.own {{ outline: 2px solid var(--text); outline-offset: -2px }}
figure {{ margin: 0.5rem 0 }}
figcaption {{ color: var(--quiet) }}
img {{ background: #ffffff; height: auto; max-width: 100% }}
.passed::before {{ content: "\\2713  passed: " }}
.failed::before {{ content: "\\2717  failed: " }}
.passed, .failed {{ border-left: 4px solid #009e73; margin: 0.4rem 0; padding-left: 0.6rem }}
.failed {{ border-color: #d55e00 }}
summary {{ cursor: pointer }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""
_ALT = {
    "heat_map": "Heat map of the excess cross-entropy: the numbers of the first table.",
    "tree": "Average-linkage tree of the languages: the joins of the table of joins.",
    "batteries": "Heat map of accuracies on batteries: the numbers of the table of batteries.",
    "curves": "Best validation loss and area under the training loss of each training: the table of trainings.",
}


def experiment_html(result: ExperimentResult, images: Mapping[str, bytes]) -> str:
    """Return the page; `images` are the PNGs of the figures by name."""
    rows = headline_rows(result)
    model, kind = result.headline
    what = f"Model {model} on {KIND_WORDS[kind]}, {MODE_WORDS[result.modes[0]]}."
    across = "Rows: listeners; columns: languages of the text."
    tables, note = result.models[0].tables, seeds_note(result)
    parts = [
        _introduction(result),
        section("Excess surprisal", _matrix(result, rows, f"{what} {across} {note}"), _image("heat_map", images, note)),
        section("Perplexity", *_perplexities(result)),
        *([section("Batteries", *_batteries(result, images))] if result.batteries else []),
        *([section("Development", _developments(result))] if result.development_ids else []),
        section("Tree", _image("tree", images, note), _joins(result.models[0], note)),
        section("Validity", *_validity(result)),
        section("Asymmetry", _table(tables.asymmetry, f"{what} Both directions of each pair. {note}")),
        section("Listeners of one text", _folded("Differences", tables.listeners, note)),
        *([section("Human ratings", *_ratings(result))] if result.correlations else []),
        section("Seeds", _folded("Mean and standard deviation over seeds", result.seed_rows, note)),
        section("Trainings", _image("curves", images, note), _folded("All trainings", result.curves, note)),
        section("Replaced characters", _replacements(result)),
        section("Other models and texts", *(_other(result, tables) for tables in result.models[1:])),
    ]
    title = escape(f"Experiment {result.experiment_id}")
    return PAGE.format(title=title, body="\n".join(parts))


def _ratings(result: ExperimentResult) -> Iterator[str]:
    """Yield the primary test as a sentence, and the table of all tests."""
    yield f"<p>{escape(correlation_line(result) or '')}</p>"
    header, *rows = correlation_rows(result)
    yield table_of(
        header,
        rows,
        f"{counted(len(rows), 'correlation')} of the excess cross-entropy with human ratings, over ordered pairs of"
        " different languages. People who understand more give higher ratings, so a negative correlation means that"
        " both agree. p is the share of permutations of the languages with a correlation at least as large. The plan"
        f" names the primary test; the {counted(len(rows) - 1, 'exploratory test')} have p-values adjusted for their"
        f" number (Holm). {seeds_note(result)}",
    )


def _introduction(result: ExperimentResult) -> str:
    characters = ""
    if result.common_characters is not None:
        shown = escape(" ".join("␣" if character == " " else character for character in result.common_characters))
        characters = f"<p>Characters that every model knows ({len(result.common_characters)}): {shown}</p>"
    return (
        f"<p>{counted(len(result.languages), 'language')}. Each model was trained on one language and has scored the"
        " text of every language. The excess is the cross-entropy of a listener's model on a text, above that of the"
        " text's own model, in nats per character: 0 on the diagonal, higher for a language that surprises the"
        " listener more.</p>"
        "<p>Brackets hold 95 % intervals of a paired bootstrap (2,000 resamples)."
        f" {seeds_note(result)}</p>{characters}"
    )


def section(title: str, *parts: str) -> str:
    """Return parts of a page, as HTML, under a title."""
    return f"<h2>{escape(title)}</h2>\n" + "\n".join(part for part in parts if part)


def _image(name: str, images: Mapping[str, bytes], note: str) -> str:
    return figure_html(images[name], _ALT[name], note)


def figure_html(png: bytes, alt: str, note: str = "") -> str:
    """Return a picture with its text, as a part of a page."""
    image = f'<img src="data:image/png;base64,{b64encode(png).decode()}" alt="{escape(alt)}">'
    return f"<figure>{image}<figcaption>{escape(f'{alt} {note}'.strip())}</figcaption></figure>"


def _matrix(result: ExperimentResult, rows: PairRows, caption: str) -> str:
    """Return the matrix as a table with listeners as rows, in the colours of the heat map."""
    scale = excess_scale(rows)
    seeds = headline_seeds(result)
    head = "".join(f'<th scope="col">{escape(language)}</th>' for language in result.languages)
    lines: list[str] = []
    for listener in result.languages:
        cells = [f'<th scope="row">{escape(listener)}</th>']
        for text in result.languages:
            row, seed = rows[listener, text], seeds.get((listener, text))
            spread = "" if seed is None or seed.excess_sd is None else f" ±{loss_number(seed.excess_sd, 'nats')}"
            interval = f"[{loss_number(row.interval_low, 'nats')}, {loss_number(row.interval_high, 'nats')}]"
            is_own = listener == text
            shown = loss_number(row.excess_cross_entropy, "nats") + (
                "" if is_own else f"{spread}<small>{interval}</small>"
            )
            style = cell_style(scale, row.excess_cross_entropy)
            cells.append(f'<td{" class=own" if is_own else ""} style="{style}">{shown}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return html_table(caption, f"<td></td>{head}", "".join(lines))


def _perplexities(result: ExperimentResult) -> Iterator[str]:
    """Yield the table of the headline, then those of the other models, texts and modes, folded."""
    found = [(tables.model, tables.kind, mode) for tables in result.models for mode in result.modes]
    for number, (model, kind, mode) in enumerate(found):
        title = f"{model} on {KIND_WORDS[kind]}, {MODE_WORDS[mode]}"
        header, *rows = figure_rows(result, listener_figures(result, model, kind, mode))
        caption = (
            f"Perplexity per character of model {title}; area under the training loss in"
            " nats · steps. Rows: language of the model; columns: language of the text."
            f" {seeds_note(result, model)}"
        )
        table = table_of(header, rows, caption)
        yield f"<details><summary>{escape(title)}</summary>{table}</details>" if number else table


def _batteries(result: ExperimentResult, images: Mapping[str, bytes]) -> Iterator[str]:
    """Yield the heat map and the table of the headline model, then the tables of the others, folded."""
    yield _image("batteries", images, battery_spread_note(result))
    for number, model in enumerate({row.model: row for row in result.batteries}):
        header, *rows = battery_table(result, model)
        table = table_of(header, rows, battery_caption(result, model))
        yield f"<details><summary>{escape(model)}</summary>{table}</details>" if number else table
    ids = escape(", ".join(result.battery_ids))
    yield f"<p>Paradigms and other measures: batteries.csv. Controls, and differences between runs: {ids}.</p>"


def _developments(result: ExperimentResult) -> str:
    ids = ", ".join(f"<code>{escape(one)}</code>" for one in result.development_ids)
    return f"<p>Curves over the checkpoints of each run, for <code>mt battery show</code>: {ids}.</p>"


def cell_style(scale: HeatScale, value: float) -> str:
    """Return the style of a cell in the colour of its number."""
    return f"background:{scale.colour(value)};color:{scale.text_colour(value)}"


def _joins(tables: ModelTables, note: str) -> str:
    rows = [(" ".join(join.left), " ".join(join.right), loss_number(join.height, "nats")) for join in tables.tree]
    return table_of(["left", "right", "distance in nats"], rows, f"Joins, the nearest first. {note}")


def _validity(result: ExperimentResult) -> list[str]:
    if result.validity.passed is None:
        return ["<p>Nothing to check: the plan has no two branches with two languages.</p>"]
    return [
        f'<p class="{"passed" if check.passed else "failed"}">{escape(check.name.replace("_", "-"))}.'
        f" {escape(check.message)}</p>"
        for check in result.validity.checks
    ]


def _replacements(result: ExperimentResult) -> str:
    if not result.replacements:
        return "<p>No model met a character that it does not know.</p>"
    title = "Characters unknown to a listener, and the ones read instead in mode assimilate"
    return _folded(title, result.replacements, seeds_note(result))


def _other(result: ExperimentResult, tables: ModelTables) -> str:
    """Return the matrix of another model or kind of text, folded."""
    title = f"{tables.model} on {KIND_WORDS[tables.kind]}"
    rows = pair_rows(tables, result.modes[0])
    cells = [
        (listener, *(loss_number(rows[listener, text].excess_cross_entropy, "nats") for text in result.languages))
        for listener in result.languages
    ]
    gap = "" if tables.gap is None else f" The gap between branches is {loss_number(tables.gap.gap, 'nats')} nats."
    caption = f"Excess cross-entropy in nats per character, {MODE_WORDS[result.modes[0]]}.{gap}"
    table = table_of(["", *result.languages], cells, f"{caption} {seeds_note(result, tables.model)}")
    return f"<details><summary>{escape(title)}</summary>{table}</details>"


def _folded(title: str, rows: Sequence[Frozen], note: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{_table(rows, f'{title}. {note}')}</details>"


def _table(rows: Sequence[Frozen], caption: str) -> str:
    """Return records as a table with a column per field."""
    if not rows:
        return "<p>None.</p>"
    names = [name.replace("_", " ") for name in type(rows[0]).model_fields]
    return table_of(names, (_cells(row) for row in rows), caption)


def _cells(row: Frozen) -> list[str]:
    values: dict[str, object] = row.model_dump()
    return [
        MISSING if value is None else f"{value:z.4f}" if isinstance(value, float) else str(value)
        for value in values.values()
    ]


def table_of(names: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """Return a table of texts with names above its columns."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    return html_table(caption, head, body)


def html_table(caption: str, head: str, body: str) -> str:
    """Return a table of a row of cells and of rows, which are HTML."""
    return (
        f'<div class="table"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
