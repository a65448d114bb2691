"""Writes docs/results.md from the files of measurements: python -m scripts.results_page FOLDER > docs/results.md

The page names the commands that write the files. A measurement without its files is left out.
"""

import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from trainer.contracts.evaluations import EvalMetrics
from trainer.contracts.experiments import ExperimentResult, MatrixRow
from trainer.contracts.runs import RunStatus
from trainer.reports.experiment_report import covered, on_text, perplexity_table
from trainer.reports.experiment_tables import headline_rows, pair_rows
from trainer.reports.report_text import ENGLISH, rows_of
from trainer.reports.run_notes import ngram_note
from trainer.system.files import read_record

_INTRODUCTION = """# Results

Measured results, each with its command. `python -m scripts.results_page results > docs/results.md` writes this page
from the files of the commands. All commands name the splits, so that they do not depend on defaults. `TEXTS` is a
folder with the texts of the [sources](#sources). The last digits of a loss depend on the CPU.
"""
_WIKITEXT = """
## Words: WikiText-2

The LSTM of a keyboard: the recipe `word_lstm_keyboard` with the values of its author (2 layers of 512, rows of 30
words, 5 epochs), and the same family with the values that [rules](defaults.md) choose for this text. The training
file of WikiText-2 (10.8 MB, 2 million words) was not to be had here. So both are trained on 95 % of `valid.txt` (0.2
million words) and tested on `test.txt`: the perplexities cannot be compared with published ones, but with that of the
n-gram of the same text. Five epochs of so little text are far too few steps for a model of this size, which learns
hardly more than the frequencies of words.

```sh
TEXT="--corpus TEXTS/wikitext2/valid.txt --set test_corpus=TEXTS/wikitext2/test.txt --set holdout_fraction=0.05
  --set test_fraction=0 --set threads=1"
mt train word_lstm_keyboard $TEXT --name recipe --json > results/wikitext-recipe.train.json
mt eval recipe --split test --json > results/wikitext-recipe.eval.json
mt train --model lstm --tokenizer word $TEXT --name rules --json > results/wikitext-rules.train.json
mt eval rules --split test --json > results/wikitext-rules.eval.json
```
"""
_SHAKESPEARE = """
## Characters: Tiny Shakespeare

nanoGPT's example for CPUs: GPT-2 with 4 layers, 4 heads and width 128, rows of 64 characters, 12 per batch, 2,000
steps, the last tenth of the text for validation. `plain` is the plain loop of `benchmarks/plain_gpt2.py` on the same
text.

```sh
python -m benchmarks.shakespeare TEXTS/tinyshakespeare/input.txt --steps 2000 --seeds {seeds} --threads 1 \\
  > results/shakespeare.txt
```

Validation loss in nats per character. `by mt eval` and `windows` read context before each predicted character, `blocks`
cut the text into rows without context. `random windows` is nanoGPT's form of evaluation (`estimate_loss`, 200 batches);
nanoGPT's README has 1.88 in that form.
"""
_TURKIC = """
## Seven languages

Excess surprisal in nats per character: how much more a model of the row's language is surprised by text of the column's
language than that language's own model ([method](experiment.md)).

```sh
mt experiment run turkic --corpora TEXTS/ipa_clean --set 'seeds={seeds}'
mt experiment export EXPERIMENT results/turkic
```
"""
_TWO_PHASE = """
## Two phases

`char_lstm` of Kazakh for 5 epochs, then of Kyrgyz and Turkish for 3, from its weights with a frozen embedding, with
the values of the authors (rows of 256, batches of 64, rate 0.002). The model of each phase scores the held-out text
of six languages; no model is trained on Azerbaijani, Uzbek and Uyghur. The first table counts characters that occur
100 times in each of the three training splits, the second all. A phase has never read the other characters of the
shared tokenizer, so they cost it much.

```sh
mt experiment run two-phase --corpora TEXTS/ipa_clean --set 'seeds={seeds}'
mt experiment export EXPERIMENT results/two-phase
```
"""
_SOURCES = """
## Sources

- `wikitext2`: `valid.txt` and `test.txt` of the GitHub repository pytorch/examples,
  `word_language_model/data/wikitext-2`.
- `tinyshakespeare`: `input.txt` of the GitHub repository karpathy/char-rnn, `data/tinyshakespeare`.
- `ipa_clean`: seven IPA corpora of 254,500 characters each, of mixed text ([corpora](corpora.md)).
"""


def results_page(folder: Path) -> str:
    """Return the page of the measurements whose files are in a folder."""
    return "".join([_INTRODUCTION, *_wikitext(folder), *_shakespeare(folder), *_experiments(folder), _SOURCES])


def _wikitext(folder: Path) -> Iterator[str]:
    rows: list[dict[str, str]] = []
    for values in ("recipe", "rules"):
        if (file := folder / f"wikitext-{values}.train.json").exists():
            run = read_record(file, RunStatus)
            test = read_record(folder / f"wikitext-{values}.eval.json", EvalMetrics)
            row = {
                "values of": values,
                "parameters": f"{run.params or 0:,}",
                "steps": f"{run.step:,}",
                "test tokens": f"{test.n_tokens:,}",
                "perplexity": f"{test.perplexity:,.1f}",
                "top-1": f"{100 * test.top1_accuracy:.2f} %",
                "top-5": f"{100 * test.top5_accuracy:.2f} %",
            }
            if (counted := test.baseline) is not None:
                row[f"perplexity of the {ENGLISH.note(ngram_note(counted))}"] = f"{math.exp(counted.ngram_loss):,.1f}"
            rows.append(row)
    if rows:
        yield _WIKITEXT
        yield _table([*rows[0]], [[*row.values()] for row in rows])


def _shakespeare(folder: Path) -> Iterator[str]:
    file = folder / "shakespeare.txt"
    rows: list[list[str]] = []
    header = [""]
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        title, figures = line.split(": ", 1)
        found: list[tuple[str, str]] = re.findall(r"([a-z][a-z ,]*?) (\d+\.\d+)(?:, |$)", figures)
        header = ["", *(name for name, _ in found)]
        rows.append([title, *(loss for _, loss in found)])
    if rows:
        yield _SHAKESPEARE.format(seeds=sum(row[0].startswith("seed ") for row in rows))
        yield _table(header, rows)


def _experiments(folder: Path) -> Iterator[str]:
    for name, text in (("turkic", _TURKIC), ("two-phase", _TWO_PHASE)):
        if (folder / name / "result.json").exists():
            result = read_record(folder / name / "result.json", ExperimentResult)
            yield text.format(seeds=f"[{','.join(map(str, result.seeds))}]")
            yield from _perplexities(result) if name == "two-phase" else _excess(result)


def _excess(result: ExperimentResult) -> Iterator[str]:
    rows = headline_rows(result)
    yield f"\nModel {ENGLISH.note(on_text(*result.headline, result.modes[0]))}, with 95 % intervals."
    yield f"\n{ENGLISH.note(covered(result))}\n"
    excess = [[_excess_cell(rows[a, b]) for b in result.languages] for a in result.languages]
    yield _table(["", *result.languages], [[a, *of_a] for a, of_a in zip(result.languages, excess, strict=True)])
    yield from _own_losses(result)
    yield "\n"
    for check in result.validity.checks:
        yield f"- {check.name.replace('_', '-')}, {'passed' if check.passed else 'failed'}: {check.message}\n"


def _own_losses(result: ExperimentResult) -> Iterator[str]:
    """The models of each language beside counting its n-grams."""
    mode = result.modes[0]
    yield "\nNats per character of each language's own models on its held-out text.\n"
    held_out = [(each.model, pair_rows(each, mode)) for each in result.models if each.kind == "held_out"]
    losses = [[f"{rows[name, name].cross_entropy:.3f}" for name in result.languages] for _, rows in held_out]
    rows = [[f"`{model}`", *own] for (model, _), own in zip(held_out, losses, strict=True)]
    yield _table(["", *result.languages], rows)


def _excess_cell(row: MatrixRow) -> str:
    if row.listener_language == row.text_language:
        return "0"
    return f"{row.excess_cross_entropy:z.3f} [{row.interval_low:z.3f}, {row.interval_high:z.3f}]"


def _perplexities(result: ExperimentResult) -> Iterator[str]:
    for mode in result.modes:
        table = perplexity_table(result, *result.headline, mode)
        header, *rows = rows_of(table)
        yield f"\n{ENGLISH.note(table.caption or table.title)}\n"
        yield _table([*header[:-1], "area (nats · steps)"], rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(results_page(Path(sys.argv[1])))
