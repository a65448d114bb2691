"""Texts of the project's material, which stands beside the repository and is not a part of it."""

from pathlib import Path

import pytest

from tests.support import ROOT

_DATA = ROOT.parent / "shared" / "data"


def shared_data(name: str) -> Path:
    """Return a file or folder of the material; skips the test where it is missing."""
    path = _DATA / name
    if not path.exists():
        pytest.skip(f"needs {name} in ../shared/data")
    return path
