"""Fields of the status of a run by which lists are sorted and narrowed."""

from typing import Literal, get_args

NumberField = Literal[
    "progress",
    "train_loss",
    "val_loss",
    "best_val_loss",
    "best_val_bits_per_char",
    "test_loss",
    "bits_per_char",
    "params",
]
SortField = Literal["created_at", "label", "model_family", "status", "owner", NumberField]
"""Fields by which a list can be sorted."""
NUMBER_FIELDS: tuple[NumberField, ...] = get_args(NumberField)
SIGNS = ("<=", ">=", "<", ">", "=")
"""Comparisons in a condition."""
_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
CONDITION = rf"(?:{'|'.join(NUMBER_FIELDS)})(?:{'|'.join(SIGNS)}){_NUMBER}"
"""Pattern of a condition on a number of a run, such as `test_loss<3.2`."""
CONDITION_PARTS = rf"({'|'.join(NUMBER_FIELDS)})({'|'.join(SIGNS)})({_NUMBER})"
"""The same with groups: field, sign and number."""
