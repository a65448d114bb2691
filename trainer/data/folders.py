"""A folder that appears under its name with all its files at once."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.system.files import DISK


@contextmanager
def filled_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that gets its name at the end, unless another process has created it first."""
    temporary = folder.with_name(f".tmp-{secrets.token_hex(8)}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        DISK.sync(temporary)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.exists():
                raise
        DISK.sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
