"""The libraries that some extras of the program install, without those of the tests."""

from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

from trainer.contracts.installation import DISTRIBUTION


def link_libraries(folder: Path, *extras: str) -> None:
    """Make importable from a folder what pip installs for the program with these extras, the program left out."""
    found: set[tuple[str, frozenset[str]]] = set()
    todo = [(DISTRIBUTION, frozenset(extras))]
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo += [(needed.name, frozenset(needed.extras)) for needed in _needed(distribution(one[0]), one[1])]
    for name in {name for name, _ in found} - {DISTRIBUTION}:
        library = distribution(name)
        for top in {file.parts[0] for file in library.files or []} - {"..", "__pycache__"}:
            if not (folder / top).exists():  # a folder that several libraries fill is linked as a whole
                (folder / top).symlink_to(str(library.locate_file(top)))


def _needed(library: Distribution, extras: frozenset[str]) -> Iterator[Requirement]:
    for needed in map(Requirement, library.requires or []):
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield needed
