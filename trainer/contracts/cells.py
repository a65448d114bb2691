"""Cells of tables that are written as a word although they have no value."""

ABSENT = frozenset({"NA", "NaN", "nan", "null", "<NA>"})
"""What R, pandas and JSON write for an absent value."""
