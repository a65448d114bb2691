"""The language of answers: catalogues of texts, plural forms and numbers."""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from importlib.resources import files
from typing import Literal

from pydantic import TypeAdapter

Language = Literal["en", "tr", "ru"]
LANGUAGE_NAMES: dict[Language, str] = {"en": "English", "tr": "Türkçe", "ru": "Русский"}

_Catalogue = dict[str, str | list[str]]
_catalogue_adapter: TypeAdapter[_Catalogue] = TypeAdapter(_Catalogue)
_current: ContextVar[Language] = ContextVar("language", default="en")
_NARROW_SPACE = "\u202f"
_MARKS: dict[Language, tuple[str, str]] = {"en": (_NARROW_SPACE, "."), "tr": (".", ","), "ru": (_NARROW_SPACE, ",")}
"""The mark between thousands, and the decimal mark."""


def _russian(number: int) -> int:
    if number % 10 == 1 and number % 100 != 11:
        return 0
    return 1 if number % 10 in (2, 3, 4) and number % 100 not in (12, 13, 14) else 2


_FORMS: dict[Language, Callable[[int], int]] = {
    "en": lambda number: int(number != 1),
    "tr": lambda number: 0,
    "ru": _russian,
}
"""The plural form of a number, as in CLDR."""


def _read(language: Language) -> _Catalogue:
    return _catalogue_adapter.validate_json((files("trainer.lab") / "translations" / f"{language}.json").read_bytes())


CATALOGUES: dict[Language, Mapping[str, str | list[str]]] = {"en": {}, "tr": _read("tr"), "ru": _read("ru")}
"""The texts of each language by their English text; a text with a number has a list of its plural forms."""


def use_language(language: Language) -> None:
    """Set the language of the current task's messages."""
    _current.set(language)


def current_language() -> Language:
    return _current.get()


def _(text: str, /, **values: object) -> str:
    """Return a text in the reader's language, with values for its {names}."""
    return translated(text).format(**values)


def translated(text: str) -> str:
    """Return a text in the reader's language with its {names}."""
    found = CATALOGUES[_current.get()].get(text, text)
    return found if isinstance(found, str) else text


def plural(one: str, many: str, number: int, /, **values: object) -> str:
    """Return a text that depends on a number, which it shows as {count}, in the reader's language."""
    return form_of(one, many, number).format(count=numeral(number), **values)


def form_of(one: str, many: str, number: int) -> str:
    """Return the text for a number in the reader's language, given the English ones for one and for others."""
    language = _current.get()
    forms = CATALOGUES[language].get(one)
    if not isinstance(forms, list):
        language, forms = "en", [one, many]
    return forms[_FORMS[language](number)]


def numeral(number: float, form: str = ",") -> str:
    """Return a number, formatted with a format specification, with the marks of the reader's language."""
    thousands, decimal = _MARKS[_current.get()]
    return format(number, form).translate({ord(","): thousands, ord("."): decimal})
