"""Small modules in place of optional libraries, for the few lines that call them."""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def stand_ins(folder: Path, modules: Mapping[str, str]) -> Iterator[None]:
    """Make modules importable from their code, by file name, and forget them at the end."""
    names = {Path(name).parts[0].removesuffix(".py") for name in modules}
    installed = {name: module for name, module in sys.modules.items() if name.split(".")[0] in names}
    for name, code in modules.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(code, encoding="utf-8")
    _forget(names)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        _forget(names)
        sys.modules.update(installed)


def _forget(names: set[str]) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in names]:
        del sys.modules[name]
