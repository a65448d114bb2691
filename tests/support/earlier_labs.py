"""Folders that earlier versions of the program have made, as `tests/fixtures/stored` keeps them."""

import tarfile
from pathlib import Path

from tests.support import ROOT

STORED = ROOT / "tests" / "fixtures" / "stored"
LABS = sorted(path.name.removesuffix(".tar.xz") for path in STORED.glob("*.tar.xz"))
"""The version and the commit of the program that made each folder."""


def unpack_lab(name: str, folder: Path) -> None:
    """Unpack the folder of an earlier version: its artifacts and its corpora, with their times."""
    with tarfile.open(STORED / f"{name}.tar.xz") as tar:
        tar.extractall(folder, filter="data")
