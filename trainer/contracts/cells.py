"""Cells of tables that are written as a word although they have no value, and encodings of tables."""

from typing import Literal

ABSENT = frozenset({"NA", "NaN", "nan", "null", "<NA>"})
"""What R, pandas and JSON write for an absent value."""
CodePage = Literal[
    "windows-1252",
    "windows-1250",
    "windows-1251",
    "windows-1254",
    "windows-1257",
    "windows-1253",
    "windows-1255",
    "windows-1256",
    "windows-1258",
]
"""A code page of Windows, in which Excel writes CSV: that of Western Europe first, then by how common they are."""
