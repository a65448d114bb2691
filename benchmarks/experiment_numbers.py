"""Recomputes the numbers of a finished experiment from its `sections.json`, in plain Python and apart from the product.

    python benchmarks/experiment_numbers.py FOLDER

Compares matrix.csv, listeners.csv, asymmetry.csv, seeds.csv, perplexity.csv, and gaps and trees of validity.json, to
six decimals. Prints a line per file; exits 1 if a number differs. All resamples are drawn with `random`, so that an
experiment with seven languages and hundreds of sections takes some minutes per seed.
"""

import csv
import json
import math
import random
import sys
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple, TypedDict, TypeVar

RESAMPLES = 2000
SEED_STREAM = 2**32
TOLERANCE = 0.6e-6  # half a unit of the sixth decimal, and rounding errors


T = TypeVar("T")


class SectionColumns(TypedDict):
    section: list[int]
    loss_sum: list[float]
    n_scored: list[int]
    n_total: list[int]


class ScoreTable(TypedDict):
    model: str
    kind: str
    mode: str
    seed: int | None
    are_seeds_linked: bool
    sections: dict[str, dict[str, SectionColumns]]


class SectionRow(TypedDict):
    section: int
    loss_sum: float
    n_scored: int
    n_total: int


class Stored(TypedDict):
    sections: dict[str, dict[str, list[SectionRow]]]
    scoring_mode: str
    branches: dict[str, str]
    controls: list[str]
    tables: list[ScoreTable]


class Gap(TypedDict):
    within: float
    across: float
    gap: float
    control_distances: dict[str, float]


class Check(TypedDict):
    name: str
    passed: bool
    gap: Gap
    joins_branches_first: bool | None


class Validity(TypedDict):
    passed: bool | None
    checks: list[Check]


class Section(NamedTuple):
    """A section of a text as a listener has scored it."""

    loss_sum: float
    n_scored: int
    n_total: int


Scores = dict[str, dict[str, list[Section]]]
"""By listener, then by language of the text."""


class Seeds(NamedTuple):
    """The scores of each seed, and their means."""

    each: list[Scores]
    mean: Scores
    are_linked: bool = False


Row = dict[str, str | float | None]


def main(folder: Path) -> int:
    stored: Stored = json.loads((folder / "sections.json").read_text(encoding="utf-8"))
    validity: Validity = json.loads((folder / "validity.json").read_text(encoding="utf-8"))
    model, kind = stored["tables"][0]["model"], stored["tables"][0]["kind"]
    modes = distinct(table["mode"] for table in stored["tables"])
    headline = {mode: all_seeds(stored["tables"], model, kind, mode) for mode in modes}
    differences = [
        *compared("matrix.csv", folder, (row for mode in modes for row in matrix(headline[mode], mode))),
        *compared("listeners.csv", folder, (row for mode in modes for row in listeners(headline[mode], mode))),
        *compared("asymmetry.csv", folder, (row for mode in modes for row in asymmetry(headline[mode], mode))),
        *compared("seeds.csv", folder, seed_rows(stored["tables"])),
        *compared("perplexity.csv", folder, perplexity_rows(stored["tables"])),
        *compared_validity(validity, stored, model, kind),
        *compared_sections(stored, headline[stored["scoring_mode"]].mean),
    ]
    for difference in differences:
        print(difference)
    print(f"{len(differences)} numbers differ" if differences else "all numbers agree")
    return 1 if differences else 0


def distinct(values: Iterable[T]) -> list[T]:
    """Return the values in the order of their first occurrences."""
    found: list[T] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def all_seeds(tables: list[ScoreTable], model: str, kind: str, mode: str) -> Seeds:
    own = [each for each in tables if (each["model"], each["kind"], each["mode"]) == (model, kind, mode)]
    each = [mean_over_seeds([table], model, kind, mode) for table in own]
    return Seeds(each, mean_over_seeds(own, model, kind, mode), own[0]["are_seeds_linked"])


def mean_over_seeds(tables: list[ScoreTable], model: str, kind: str, mode: str) -> Scores:
    """Return each section with the mean over seeds of its sum of losses, of texts that have a model of their own."""
    seeds = [each["sections"] for each in tables if (each["model"], each["kind"], each["mode"]) == (model, kind, mode)]
    return {
        listener: {
            text: [
                Section(fmean(seed[listener][text]["loss_sum"][place] for seed in seeds), n_scored, n_total)
                for place, (n_scored, n_total) in enumerate(zip(own["n_scored"], own["n_total"], strict=True))
            ]
            for text, own in texts.items()
            if text in seeds[0]
        }
        for listener, texts in seeds[0].items()
    }


def cross_entropy(sections: Iterable[Section]) -> float:
    losses, positions = 0.0, 0
    for section in sections:
        losses += section.loss_sum
        positions += section.n_scored
    return losses / positions


def matrix(seeds: Seeds, mode: str) -> Iterator[Row]:
    scores = seeds.mean
    for listener, texts in scores.items():
        for text, sections in texts.items():
            native = scores[text][text]
            low, high = 0.0, 0.0
            if listener != text:
                values: list[float] = []
                rng, of_seeds = random.Random(0), random.Random(SEED_STREAM)
                for _ in range(RESAMPLES):
                    drawn = [rng.randrange(len(sections)) for _ in sections]
                    one, other = drawn_seeds(of_seeds, seeds)
                    values.append(resampled(one, listener, text, drawn) - resampled(other, text, text, drawn))
                low, high = ends(values)
            n_scored = sum(section.n_scored for section in sections)
            yield {
                "listener_language": listener,
                "text_language": text,
                "scoring_mode": mode,
                "cross_entropy": cross_entropy(sections),
                "native_cross_entropy": cross_entropy(native),
                "excess_cross_entropy": cross_entropy(sections) - cross_entropy(native),
                "interval_low": low,
                "interval_high": high,
                "fraction_scored": n_scored / sum(section.n_total for section in sections),
                "n_scored": n_scored,
                "n_seeds": len(seeds.each),
            }


def listeners(seeds: Seeds, mode: str) -> Iterator[Row]:
    scores, seed = seeds.mean, 0
    for text in sorted(scores):
        for a, b in combinations(sorted(scores), 2):
            if text in (a, b):
                continue
            values: list[float] = []
            rng, of_seeds = random.Random(seed), random.Random(SEED_STREAM + seed)
            for _ in range(RESAMPLES):
                drawn = [rng.randrange(len(scores[text][text])) for _ in scores[text][text]]
                of_a, of_b = drawn_seeds(of_seeds, seeds)
                values.append(resampled(of_a, a, text, drawn) - resampled(of_b, b, text, drawn))
            low, high = ends(values)
            seed += 1
            yield {
                "text_language": text,
                "listener_a": a,
                "listener_b": b,
                "scoring_mode": mode,
                "difference": excess(scores, a, text) - excess(scores, b, text),
                "interval_low": low,
                "interval_high": high,
                "n_seeds": len(seeds.each),
            }


def asymmetry(seeds: Seeds, mode: str) -> Iterator[Row]:
    scores = seeds.mean
    for seed, (a, b) in enumerate(combinations(sorted(scores), 2)):
        values: list[float] = []
        rng, of_seeds = random.Random(seed), random.Random(SEED_STREAM + seed)
        for _ in range(RESAMPLES):
            of_b = [rng.randrange(len(scores[b][b])) for _ in scores[b][b]]
            of_a = [rng.randrange(len(scores[a][a])) for _ in scores[a][a]]
            by_a, by_b = drawn_seeds(of_seeds, seeds)
            a_on_b = resampled(by_a, a, b, of_b) - resampled(by_b, b, b, of_b)
            b_on_a = resampled(by_b, b, a, of_a) - resampled(by_a, a, a, of_a)
            values.append(a_on_b - b_on_a)
        low, high = ends(values)
        yield {
            "language_a": a,
            "language_b": b,
            "scoring_mode": mode,
            "excess_a_on_b": excess(scores, a, b),
            "excess_b_on_a": excess(scores, b, a),
            "asymmetry": excess(scores, a, b) - excess(scores, b, a),
            "interval_low": low,
            "interval_high": high,
            "n_seeds": len(seeds.each),
        }


def excess(scores: Scores, listener: str, text: str) -> float:
    return cross_entropy(scores[listener][text]) - cross_entropy(scores[text][text])


def drawn_seeds(rng: random.Random, seeds: Seeds) -> tuple[list[Scores], list[Scores]]:
    """Return the scores of the drawn seeds of two models."""
    if len(seeds.each) == 1:
        return seeds.each, seeds.each
    first = [seeds.each[rng.randrange(len(seeds.each))] for _ in seeds.each]
    return first, first if seeds.are_linked else [seeds.each[rng.randrange(len(seeds.each))] for _ in seeds.each]


def resampled(seeds: list[Scores], listener: str, text: str, drawn: list[int]) -> float:
    """Return the cross-entropy of the drawn sections, with the mean over the drawn seeds of each loss sum."""
    return fmean(cross_entropy(scores[listener][text][index] for index in drawn) for scores in seeds)


def ends(values: list[float]) -> tuple[float, float]:
    """Return the 2.5 % and the 97.5 % value."""
    ranked = sorted(values)
    return ranked[math.floor(0.025 * (RESAMPLES - 1))], ranked[math.ceil(0.975 * (RESAMPLES - 1))]


def seed_rows(tables: list[ScoreTable]) -> Iterator[Row]:
    for model, kind, mode in distinct((each["model"], each["kind"], each["mode"]) for each in tables):
        own = [each for each in tables if (each["model"], each["kind"], each["mode"]) == (model, kind, mode)]
        if own[0]["seed"] is None:
            continue
        seeds = [mean_over_seeds([each], model, kind, mode) for each in own]
        for listener, texts in seeds[0].items():
            for text in texts:
                nats = [cross_entropy(scores[listener][text]) for scores in seeds]
                above = [excess(scores, listener, text) for scores in seeds]
                yield {
                    "model": model,
                    "kind": kind,
                    "listener_language": listener,
                    "text_language": text,
                    "scoring_mode": mode,
                    "n_seeds": len(seeds),
                    "cross_entropy_mean": fmean(nats),
                    "cross_entropy_sd": stdev(nats) if len(seeds) > 1 else None,
                    "excess_mean": fmean(above),
                    "excess_sd": stdev(above) if len(seeds) > 1 else None,
                }


def perplexity_rows(tables: list[ScoreTable]) -> Iterator[Row]:
    for model, kind, mode in distinct((each["model"], each["kind"], each["mode"]) for each in tables):
        own = [
            each["sections"] for each in tables if (each["model"], each["kind"], each["mode"]) == (model, kind, mode)
        ]
        for listener, texts in own[0].items():
            for text, first in texts.items():
                scored = sum(first["n_scored"])
                nats = [math.fsum(seed[listener][text]["loss_sum"]) / scored for seed in own]
                yield {
                    "model": model,
                    "kind": kind,
                    "listener_language": listener,
                    "text_language": text,
                    "scoring_mode": mode,
                    "n_seeds": len(own),
                    "cross_entropy": fmean(nats),
                    "perplexity": math.exp(fmean(nats)),
                    "perplexity_sd": stdev(map(math.exp, nats)) if len(own) > 1 else None,
                    "n_scored": scored,
                }


def compared(name: str, folder: Path, expected: Iterable[Row]) -> Iterator[str]:
    """Yield the differences of a CSV file from the recomputed rows."""
    with (folder / name).open(encoding="utf-8", newline="") as file:
        header, *found = csv.reader(file)
    rows = list(expected)
    print(f"{name}: {len(rows)} rows")
    if len(found) != len(rows):
        yield f"{name} has {len(found)} rows, not {len(rows)}"
    for number, (cells, row) in enumerate(zip(found, rows, strict=False), start=2):
        if header != list(row):
            yield f"{name} has the columns {', '.join(header)}, not {', '.join(row)}"
            return
        for cell, (column, value) in zip(cells, row.items(), strict=True):
            if not is_equal(cell, value):
                yield f"{name}, line {number}: {column} is {cell}, not {value}"


def is_equal(cell: str, value: str | float | None) -> bool:
    if value is None or isinstance(value, str):
        return cell == (value or "")
    return cell != "" and abs(float(cell) - value) <= TOLERANCE


def compared_validity(validity: Validity, stored: Stored, model: str, headline_kind: str) -> Iterator[str]:
    """Yield the differences of gaps, trees and verdicts."""
    checks = {check["name"]: check for check in validity["checks"]}
    print(f"validity.json: {len(checks)} checks")
    if validity["passed"] != (all(check["passed"] for check in checks.values()) if checks else None):
        yield "validity.json: passed is not that of all checks"
    gaps: dict[str, float] = {}
    for name, check in checks.items():
        kind = headline_kind if name == "control" else name
        scores = mean_over_seeds(stored["tables"], model, kind, stored["scoring_mode"])
        distance = {(a, b): (excess(scores, a, b) + excess(scores, b, a)) / 2 for a in scores for b in scores}
        branches = {language: branch for language, branch in stored["branches"].items() if language in scores}
        pairs = list(combinations(branches, 2))
        within = fmean(distance[a, b] for a, b in pairs if branches[a] == branches[b])
        across = fmean(distance[a, b] for a, b in pairs if branches[a] != branches[b])
        gaps[name] = across - within
        numbers = {"within": within, "across": across, "gap": across - within}
        found = {"within": check["gap"]["within"], "across": check["gap"]["across"], "gap": check["gap"]["gap"]}
        for control in stored["controls"]:
            numbers[control] = min(distance[control, a] for a in scores if a not in stored["controls"])
            found[control] = check["gap"]["control_distances"][control]
        for column, value in numbers.items():
            if abs(found[column] - value) > TOLERANCE:
                yield f"validity.json: {column} of {name} is {found[column]}, not {value}"
        joins = joins_branches_first(list(scores), distance, branches)
        if name in ("passages", "held_out") and check["joins_branches_first"] != joins:
            yield f"validity.json: joins_branches_first of {name} is not {joins}"
        passed = {
            "passages": across > within and joins,
            "held_out": across > within and joins,
            "shuffled": name == "shuffled" and gaps[name] < gaps.get("held_out", math.nan) / 2,
            "control": all(numbers[control] > across for control in stored["controls"]),
        }[name]
        if check["passed"] != passed:
            yield f"validity.json: passed of {name} is not {passed}"


def joins_branches_first(
    languages: list[str], distance: dict[tuple[str, str], float], branches: dict[str, str]
) -> bool:
    """Join the two clusters with the smallest mean distance until one is left; return True if each branch was one."""
    clusters: list[tuple[str, ...]] = [(language,) for language in languages]
    seen = {frozenset(cluster) for cluster in clusters}

    def linkage(pair: tuple[tuple[str, ...], tuple[str, ...]]) -> float:
        return fmean(distance[a, b] for a in pair[0] for b in pair[1])

    while len(clusters) > 1:
        left, right = min(combinations(clusters, 2), key=linkage)
        clusters = [cluster for cluster in clusters if cluster not in (left, right)] + [left + right]
        seen.add(frozenset(left + right))
    groups = {branch: frozenset(a for a in branches if branches[a] == branch) for branch in branches.values()}
    return all(group in seen for group in groups.values())


def compared_sections(stored: Stored, headline: Scores) -> Iterator[str]:
    """Yield the differences of the headline scores from the means over seeds."""
    for listener, texts in stored["sections"].items():
        for text, rows in texts.items():
            for row, section in zip(rows, headline[listener][text], strict=True):
                same = (row["n_scored"], row["n_total"]) == (section.n_scored, section.n_total)
                if not same or abs(row["loss_sum"] - section.loss_sum) > TOLERANCE:
                    yield f"sections.json: section {row['section']} of {text} by {listener} is not the mean over seeds"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/experiment_numbers.py FOLDER")
    sys.exit(main(Path(sys.argv[1])))
