"""A disk that knows what is durable, and all states that a crash may leave of what is not (reliability.md §3.2).

Data that was not synced may be lost, cut short, zeros, or whole; of the names that were not synced, any may be lost.
"""

import os
import shutil
from collections.abc import Iterator
from copy import deepcopy
from io import FileIO
from itertools import product
from pathlib import Path
from typing import BinaryIO, NamedTuple

from trainer.system.files import Disk

Tree = dict[str, bytes | None]
"""The content of a folder, by relative path; None is a folder."""


class Change(NamedTuple):
    """A name that is put up or taken away in a folder; a rename is both at once."""

    added: tuple[str, int] | None = None
    removed: str | None = None


class Node:
    """A file or a folder: what is durable of it, and what has come on top of that."""

    def __init__(self, *, is_folder: bool) -> None:
        self.is_folder = is_folder
        self.data = b""
        self.pending_data: list[bytes] = []
        """Each is all that the file holds after some write."""
        self.names: dict[str, int] = {}
        self.pending_names: list[Change] = []

    def versions(self) -> list[bytes]:
        """All that may be found in the file after a crash."""
        found = [self.data]
        for before, after in zip([self.data, *self.pending_data], self.pending_data, strict=False):
            new = len(after) - len(before)
            if new <= 0:
                found.append(after)
            else:
                found += [after[: len(before) + new // 2], before + bytes(new), after]
        return found

    def folder_versions(self) -> list[dict[str, int]]:
        """Any of the new names may be lost; what was taken away is gone as far as it went."""
        new = [change for change in self.pending_names if change.added is not None]
        gone = [change for change in self.pending_names if change.added is None]
        versions: list[dict[str, int]] = []
        for chosen in product((True, False), repeat=len(new)):
            for count in range(len(gone) + 1):
                names = dict(self.names)
                for change in (*(c for c, survives in zip(new, chosen, strict=True) if survives), *gone[:count]):
                    _apply(change, names)
                versions.append(names)
        return versions


def _apply(change: Change, names: dict[str, int]) -> None:
    if change.removed is not None:
        names.pop(change.removed, None)
    if change.added is not None:
        names[change.added[0]] = change.added[1]


class RecordingDisk(Disk):
    """A real disk below a folder, with a model of what would be left of it had the power been cut at any operation.

    Files are known by what was written through this doorway; `without` names a kind of sync that is left out: of
    `file`, of folders whose name begins so (`.tmp-`), or of `parent`, any other folder.
    """

    def __init__(self, root: Path, without: str | None = None) -> None:
        self._root = root
        self._without = without
        self._nodes = [Node(is_folder=True)]
        self._moments: list[tuple[list[Node], int]] = []
        self._acknowledged = 0
        self._note()

    def acknowledge(self) -> None:
        """Say that somebody has been promised what is written so far."""
        self._acknowledged += 1
        self._note()

    def states(self) -> Iterator[tuple[Tree, int]]:
        """Each state that a crash may leave, once, with the number of promises made before it; latest first."""
        seen: set[tuple[str, int]] = set()
        for nodes, acknowledged in reversed(self._moments):
            choices: list[list[bytes | dict[str, int]]] = [
                [*node.folder_versions()] if node.is_folder else [*node.versions()] for node in _reachable(nodes)
            ]
            places = [nodes.index(node) for node in _reachable(nodes)]
            for chosen in product(*choices):
                tree = dict(_tree(dict(zip(places, chosen, strict=True)), 0, ""))
                key = (repr(sorted(tree.items())), acknowledged)
                if key not in seen:
                    seen.add(key)
                    yield tree, acknowledged

    def make_folder(self, folder: Path, *, exist_ok: bool = True) -> None:
        is_new = not folder.exists()
        super().make_folder(folder, exist_ok=exist_ok)
        if is_new:
            self._add(folder, Node(is_folder=True))

    def write(self, path: Path, data: bytes | BinaryIO) -> None:
        whole = data if isinstance(data, bytes) else data.read()
        if path.exists():
            node = self._node(path)
            node.pending_data.append(b"")
        else:
            node = Node(is_folder=False)
            self._add(path, node)
        self._note()
        node.pending_data.append(whole)
        self._note()
        super().write(path, whole)

    def write_at(self, file: FileIO, offset: int, data: bytes) -> None:
        node = self._node(Path(os.readlink(f"/proc/self/fd/{file.fileno()}")))
        node.pending_data.append((node.pending_data or [node.data])[-1][:offset] + data)
        self._note()
        super().write_at(file, offset, data)

    def cut(self, file: FileIO, length: int) -> None:
        node = self._node(Path(os.readlink(f"/proc/self/fd/{file.fileno()}")))
        node.pending_data.append((node.pending_data or [node.data])[-1][:length])
        self._note()
        super().cut(file, length)

    def rename(self, source: Path, target: Path) -> None:
        number = self._number(source)
        super().rename(source, target)
        self._node(target.parent).pending_names.append(Change((target.name, number), source.name))
        self._note()

    def remove(self, path: Path) -> None:
        if path.exists():
            self._node(path.parent).pending_names.append(Change(removed=path.name))
        super().remove(path)
        self._note()

    def remove_folder(self, folder: Path) -> None:
        for path in sorted(folder.iterdir()):
            self._node(folder).pending_names.append(Change(removed=path.name))
            self._note()
        self._node(folder.parent).pending_names.append(Change(removed=folder.name))
        super().remove_folder(folder)
        self._note()

    def flush(self, descriptor: int) -> None:
        """Not done in truth: no power is cut."""
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        kind = "file" if path.is_file() else ".tmp-" if path.name.startswith(".tmp-") else "parent"
        if kind != self._without:
            node = self._node(path)
            node.data = (node.pending_data or [node.data])[-1]
            for change in node.pending_names:
                _apply(change, node.names)
            node.pending_data, node.pending_names = [], []
            self._note()

    def _add(self, path: Path, node: Node) -> None:
        self._nodes.append(node)
        self._node(path.parent).pending_names.append(Change((path.name, len(self._nodes) - 1)))
        self._note()

    def _number(self, path: Path) -> int:
        number = 0
        for part in path.relative_to(self._root).parts:
            node = self._nodes[number]
            names = dict(node.names)
            for change in node.pending_names:
                _apply(change, names)
            number = names[part]
        return number

    def _node(self, path: Path) -> Node:
        return self._nodes[self._number(path)]

    def _note(self) -> None:
        self._moments.append((deepcopy(self._nodes), self._acknowledged))


def _reachable(nodes: list[Node]) -> list[Node]:
    """The files and folders that some name may lead to."""
    found: list[Node] = []
    waiting = [nodes[0]]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.append(node)
            added = [change.added[1] for change in node.pending_names if change.added is not None]
            waiting += [nodes[number] for number in (*node.names.values(), *added)]
    return found


def _tree(chosen: dict[int, bytes | dict[str, int]], number: int, path: str) -> Iterator[tuple[str, bytes | None]]:
    found = chosen[number]
    if isinstance(found, bytes):
        yield path, found
        return
    yield path, None
    for name, below in found.items():
        yield from _tree(chosen, below, f"{path}/{name}" if path else name)


def lay_out(tree: Tree, folder: Path) -> None:
    """Put a state where it can be looked at, in place of what was there."""
    shutil.rmtree(folder, ignore_errors=True)
    for path, data in sorted(tree.items()):
        if data is None:
            (folder / path).mkdir(parents=True)
        else:
            (folder / path).write_bytes(data)
