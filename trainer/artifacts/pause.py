"""A mark on disk that the queue of an artifacts folder is paused, so that the pause outlasts a wipe of Redis."""

from pathlib import Path

from trainer.system.files import DISK, write_atomically

_NAME = "paused"


def mark_paused(artifacts_root: Path, *, is_paused: bool) -> None:
    """Set or remove the mark; raises OSError."""
    if is_paused:
        DISK.make_folder(artifacts_root)
        write_atomically(artifacts_root / _NAME, b"")
    elif is_marked_paused(artifacts_root):
        DISK.remove(artifacts_root / _NAME)


def is_marked_paused(artifacts_root: Path) -> bool:
    return (artifacts_root / _NAME).exists()
