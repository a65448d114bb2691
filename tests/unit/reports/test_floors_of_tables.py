"""Each table of results has a floor: what the same rule reaches without information, and a simulation that holds it.

A new table of a report has no row here, so that its author says which floor it has, or why it needs none.
"""

import ast
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import NamedTuple

import pytest

from tests.support import ROOT

REPORTS = ROOT / "trainer" / "reports"


class Floor(NamedTuple):
    """What stands beside the numbers of a table, and the code that simulates results without information."""

    what: str
    simulation: str
    """Module and function: the simulation calls what computes the numbers, with seeds that are stated."""


SHUFFLED = Floor("the F1 of the same rule on shuffled cues, thresholds chosen anew", "benchmarks.segmentation:analyse")
ITEMS = Floor(
    "the share of random items, untrained weights and counts, in the table of controls",
    "tests.unit.batteries.test_scoring:test_untrained_models__are_at_the_chance_of_a_suite",
)
BLIND = Floor(
    "the share of random surprisals, for which `=` holds",
    "tests.unit.batteries.test_formulas:test_chances__are_those_of_random_surprisals",
)
EQUAL_RUNS = Floor("0: the difference of two settings with its interval", "benchmarks.differences:of_difference")
EQUAL_FINALISTS = Floor("0: the difference of the winner with its interval", "benchmarks.finalists:simulate")
NO_EFFECT = Floor("0: the gain over the baseline on held-out texts", "benchmarks.reading:analyse")
EFFECTS = Floor("0: the effect with its clustered interval", "benchmarks.reading:analyse_effects")
FRESH_SEEDS = Floor("the n-gram beside the winner, on a split that chose nothing", "benchmarks.studies:simulate")
ITEMS_ALIKE = Floor(
    "0: the difference of two runs on the same items with its interval",
    "tests.unit.batteries.test_comparisons:test_interval__of_many_items_covers_as_many",
)

FLOORS: Mapping[tuple[str, str], Floor] = {
    ("segmentation_report", "boundaries"): SHUFFLED,
    ("segmentation_report", "differences"): SHUFFLED,
    ("battery_report", "accuracy"): ITEMS,
    ("battery_report", "controls"): ITEMS,
    ("battery_report", "formulas"): BLIND,
    ("battery_report", "comparisons"): ITEMS_ALIKE,
    ("development_report", "curves"): ITEMS,
    ("experiment_report", "batteries"): ITEMS,
    ("comparison_report", "metrics"): EQUAL_RUNS,
    ("comparison_report", "differences"): EQUAL_RUNS,
    ("study_report", "finalists"): EQUAL_FINALISTS,
    ("study_report", "test"): FRESH_SEEDS,
    ("reading_report", "gains"): NO_EFFECT,
    ("reading_report", "effects"): EFFECTS,
}
WITHOUT_CHOICE: Mapping[tuple[str, str], str] = {
    ("battery_report", "effects"): "means of all items",
    ("battery_report", "seeds"): "means of all seeds",
    ("comparison_report", "settings"): "what was asked for",
    ("corpus_report", "characters"): "counts",
    ("corpus_report", "facts"): "counts",
    ("development_report", "words"): "ages by a fixed rule, beside the frequency of each word",
    ("experiment_report", "matrix"): "all cells, each with counting and its interval",
    ("experiment_report", "correlations"): "the tests that the plan names",
    ("experiment_report", "perplexity"): "all cells",
    ("experiment_report", "counting"): "the floor of the cells itself",
    ("experiment_report", "joins"): "all cells",
    ("experiment_report", "asymmetry"): "all pairs of languages",
    ("experiment_report", "listeners"): "ratings of people",
    ("experiment_report", "trainings"): "facts",
    ("experiment_report", "seeds"): "all seeds",
    ("experiment_report", "replacements"): "counts",
    ("experiment_report", "jobs"): "facts",
    ("group_report", "numbers"): "means of all seeds",
    ("group_report", "runs"): "all runs",
    ("reading_report", "seeds"): "means of all seeds",
    ("run_report", "status"): "facts, with the line of counting",
    ("run_report", "losses"): "the weights are chosen on validation, and the test split and counting stand beside it",
    ("study_report", "settings"): "what was asked for",
    ("study_report", "rounds"): "all trainings, which the table of finalists judges",
    ("study_report", "full"): "all trainings, which the table of finalists judges",
    ("tokenizer_report", "status"): "facts",
    ("unlock_report", "unlocked"): "one look each, at weights that are fixed",
}


def tables_of(module: str) -> Iterator[str]:
    """Yield the names of the tables that a module of reports builds, without what follows a hyphen or a value."""
    for node in ast.walk(ast.parse((REPORTS / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Table":
            [name] = [keyword.value for keyword in node.keywords if keyword.arg == "name"]
            texts = [
                one.value for one in ast.walk(name) if isinstance(one, ast.Constant) and isinstance(one.value, str)
            ]
            yield from {text.partition("-")[0] for text in texts if text.partition("-")[0] not in ("", "sum")}


def test_each_table_of_results__has_a_floor_or_needs_none() -> None:
    built = {(path.stem, name) for path in REPORTS.glob("*_report.py") for name in tables_of(path.stem)}
    of_functions = {("study_report", "rounds"), ("study_report", "full")}  # their names are arguments
    assert built | of_functions == FLOORS.keys() | WITHOUT_CHOICE.keys()
    assert not FLOORS.keys() & WITHOUT_CHOICE.keys()


@pytest.mark.parametrize("simulation", sorted({floor.simulation for floor in FLOORS.values()}))
def test_each_floor__is_simulated(simulation: str) -> None:
    module, _, function = simulation.partition(":")
    defined: dict[str, object] = vars(import_module(module))
    assert callable(defined[function])
