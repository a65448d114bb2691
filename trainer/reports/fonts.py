"""Fonts of pictures: for each sign the first installed font that has it."""

import warnings
from collections.abc import Iterable, Mapping
from functools import cached_property
from io import BytesIO
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font

from trainer.contracts.wording import counted, listed
from trainer.reports.letters import font_packages, without_forms

Metadata: TypeAlias = Mapping[str, str | None] | None
FIRST_FONT = "DejaVu Sans"
"""Part of matplotlib; has IPA, Kazakh, combining marks, and the Arabic letters of Uyghur."""
_PLACEHOLDERS = ("Last Resort", "Last Resort High-Efficiency", "Adobe Blank")
"""Fonts with a frame, or nothing, in place of each sign."""
_NOTE_COLOUR = "#7a828e"
"""Grey that is readable on dark and on white."""


@runtime_checkable
class _Text(Protocol):
    """A text of a figure."""

    def get_text(self) -> str: ...

    def set_fontfamily(self, fontname: list[str]) -> None: ...


class _InstalledFonts:
    """The fonts of this machine, and the family that has a character; both are found once per process."""

    def __init__(self) -> None:
        self._families: dict[str, str | None] = {}
        self._characters: dict[str, frozenset[int]] = {}

    def family(self, char: str) -> str | None:
        """Return the family of the first font that has a printable character; None if no font has it."""
        if char not in self._families:
            is_seen = char.isprintable()
            self._families[char] = (
                (self._first(self._known, char) or self._first(self._newer, char)) if is_seen else None
            )
        return self._families[char]

    @cached_property
    def _known(self) -> list[FontEntry]:
        return _ranked(fontManager.ttflist)

    @cached_property
    def _newer(self) -> list[FontEntry]:
        """The fonts that were installed after matplotlib made its list."""
        known = {*fontManager.ttflist}
        for path in {*findSystemFonts()} - {entry.fname for entry in known}:
            try:
                fontManager.addfont(path)
            except (OSError, RuntimeError):  # not a font that matplotlib can draw, such as one of coloured pictures
                continue
        return _ranked(entry for entry in fontManager.ttflist if entry not in known)

    def _first(self, entries: Iterable[FontEntry], char: str) -> str | None:
        return next((entry.name for entry in entries if ord(char) in self._covered(entry.fname)), None)

    def _covered(self, path: str) -> frozenset[int]:
        if path not in self._characters:
            try:
                self._characters[path] = frozenset(FT2Font(path).get_charmap())
            except (OSError, RuntimeError):  # matplotlib's list is older than a change of the fonts
                self._characters[path] = frozenset()
        return self._characters[path]


def _ranked(entries: Iterable[FontEntry]) -> list[FontEntry]:
    """Return the usual font, then upright sans-serif fonts of normal weight, then the others."""
    return sorted((one for one in entries if one.name not in _PLACEHOLDERS), key=_rank)


def _rank(entry: FontEntry) -> tuple[bool, bool, bool, bool, bool, str, str]:
    is_other = entry.name != FIRST_FONT
    is_odd = entry.style != "normal" or entry.weight not in (400, "normal", "regular")
    is_other_chinese = "CJK" in entry.name and not entry.name.endswith("CJK SC")
    return is_other, is_odd, "Sans" not in entry.name, "Mono" in entry.name, is_other_chinese, entry.name, entry.fname


_INSTALLED = _InstalledFonts()


def fonts_of(text: str) -> list[str]:
    """Return the families of fonts that draw a text, the usual one first."""
    families = {family for char in text if (family := _INSTALLED.family(char)) is not None}
    return [FIRST_FONT, *sorted(families - {FIRST_FONT})]


def is_drawable(sign: str) -> bool:
    """Return whether a sign has something to see, and installed fonts have all of it."""
    seen = [char for char in sign if char.isprintable()]
    return bool(seen) and None not in map(_INSTALLED.family, seen)


def font_note(signs: Iterable[str]) -> str | None:
    """Return one sentence about the signs that no installed font has; None if there are none."""
    shown = ("".join(filter(str.isprintable, without_forms(sign))) for sign in signs)
    missing = {sign for sign in shown if sign and not is_drawable(sign)}
    if not missing:
        return None
    chars = (char for sign in sorted(missing) for char in sign if _INSTALLED.family(char) is None)
    signs_of = f"{counted(len(missing), 'sign')} of this picture"
    return f"No font of this machine has {signs_of}: install one (on Debian and Ubuntu {listed(font_packages(chars))})."


def drawable(name: str) -> str:
    """Return a name as matplotlib can write it: no formula, and a box for each invisible character."""
    return "".join(char if char.isprintable() else "□" for char in name).replace("$", r"\$")


def save_figure(figure: Figure, file_format: Literal["png", "pdf", "svg"], metadata: Metadata = None) -> bytes:
    """Return a figure as a file; its texts have the fonts of their characters, and a line says which signs have none.

    matplotlib's warnings are about looks, and whoever reads them cannot act on them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _use_fonts(figure)
        image = BytesIO()
        figure.savefig(image, format=file_format, metadata=metadata)
    return image.getvalue()


def _use_fonts(figure: Figure) -> None:
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_ticklabels()  # which writes them
    artists: list[object] = [*figure.findobj()]
    texts = [one for one in artists if isinstance(one, _Text)]
    chars = "".join(sorted({char for one in texts for char in one.get_text()}))
    note = font_note(chars)
    if note is not None:
        lines = filter(None, (figure.get_supxlabel(), *note.split(": ")))
        figure.supxlabel("\n".join(lines), color=_NOTE_COLOUR, fontsize=8)
    families = fonts_of(chars)
    if len(families) > 1:
        for one in texts:
            one.set_fontfamily(families)
