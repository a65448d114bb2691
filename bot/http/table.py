"""The table of all operations."""

from bot.http import artifacts, comparisons, health, inference, runs, tokenizers
from bot.http.operations import Operation

OPERATIONS: tuple[Operation, ...] = (
    *health.OPERATIONS,
    *runs.OPERATIONS,
    *comparisons.OPERATIONS,
    *inference.OPERATIONS,
    *tokenizers.OPERATIONS,
    *artifacts.OPERATIONS,
)
