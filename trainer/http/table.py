"""The table of all operations."""

from trainer.http import artifacts, comparisons, completions, experiments, health, inference, runs, tokenizers
from trainer.http.operations import Operation

OPERATIONS: tuple[Operation, ...] = (
    *health.OPERATIONS,
    *runs.OPERATIONS,
    *comparisons.OPERATIONS,
    *inference.OPERATIONS,
    *completions.OPERATIONS,
    *tokenizers.OPERATIONS,
    *experiments.OPERATIONS,
    *artifacts.OPERATIONS,
)
