"""The installed program: its files of data, where a user's data is kept, and the extras that it may lack."""

import os
import sys
from collections.abc import Mapping
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from trainer.contracts.errors import AppError, ErrorCode, field_error

DISTRIBUTION = "model-trainer"
_PACKAGE = Path(str(files("trainer")))
BUNDLED_CORPORA, RECIPES = _PACKAGE / "bundled" / "corpora", _PACKAGE / "bundled" / "recipes"
PLAN_PREFIX = "experiment_"
CHECKOUT = _PACKAGE.parent if (_PACKAGE.parent / "scripts" / "setup.py").is_file() else None
"""The folder of the source that the program runs from; None if it is installed."""
DOCS = _PACKAGE / "bundled" / "docs" if CHECKOUT is None else CHECKOUT / "docs"
"""The pages of the documentation."""
EXTRA_MODULES: Mapping[str, str] = {"train": "torch", "server": "aiohttp", "discord": "discord", "agents": "mcp"}
"""A module of each extra that whole commands need."""


def default_folder(name: str) -> Path:
    """Return the default of a folder of data: in a checkout below the working folder, else the user's data folder."""
    if CHECKOUT is not None:
        return Path(name)
    from platformdirs import user_data_path  # a checkout does without

    return user_data_path(DISTRIBUTION, appauthor=False) / name


def recipes() -> list[str]:
    """Return the names of the plans of experiments that the program ships."""
    return sorted(path.stem.removeprefix(PLAN_PREFIX) for path in RECIPES.glob(f"{PLAN_PREFIX}*.yaml"))


def keep_font_cache() -> None:
    """Let an installed program keep matplotlib's list of fonts with the user's data, unless MPLCONFIGDIR says where."""
    if CHECKOUT is None:
        os.environ.setdefault("MPLCONFIGDIR", str(default_folder("matplotlib")))


def command_for(*extras: str) -> str:
    """Return the command that installs extras: with the checkout's script, which keeps its install editable."""
    if CHECKOUT is not None:
        return f"`python scripts/setup.py {' '.join(f'--extra {extra}' for extra in extras)}`"
    installer = "uv tool install" if (Path(sys.prefix) / "uv-receipt.toml").is_file() else "pip install"
    return f"`{installer} '{DISTRIBUTION}[{','.join(extras)}]'`"


def require_extras(*extras: str) -> None:
    """Raise UNSUPPORTED_BACKEND, naming all that is missing, if the libraries of extras are not installed."""
    if missing := [extra for extra in missing_extras() if extra in extras]:
        raise extras_needed(*missing)


def require_extra_of(form: str) -> None:
    """Raise UNSUPPORTED_BACKEND if the library that writes a format, which has its extra's name, is not installed."""
    if find_spec(form) is None:
        message = f"'{form}' needs the extra `{form}`: run {command_for(form)}."
        raise field_error(ErrorCode.UNSUPPORTED_BACKEND, "format", message)


def missing_extras() -> list[str]:
    """Return the extras whose libraries are not installed, of those that whole commands need."""
    return [extra for extra, module in EXTRA_MODULES.items() if find_spec(module) is None]


def extras_needed(*extras: str) -> AppError:
    """Return the error of a command that lacks extras."""
    names = " and ".join(f"`{extra}`" for extra in extras)
    message = f"This needs the extra {names}: run {command_for(*extras)}."
    if len(extras) > 1:
        message = f"This needs the extras {names}: run {command_for(*extras)}."
    return AppError(ErrorCode.UNSUPPORTED_BACKEND, message)
