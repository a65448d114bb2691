"""The language of answers: catalogues of texts, plural forms and numbers.

The parts of the program below the faces word their messages in English: refusals, reasons, costs, notes of a run.
They are stored, logged and sent over HTTP in these words. A face that has a language passes them through `told()`,
which finds the template of a message in a catalogue of its own, and renders the translated one with its values.
"""

import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from importlib.resources import files
from typing import Literal, NamedTuple

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


def _read(name: str) -> _Catalogue:
    return _catalogue_adapter.validate_json((files("trainer.lab") / "translations" / f"{name}.json").read_bytes())


CATALOGUES: dict[Language, Mapping[str, str | list[str]]] = {"en": {}, "tr": _read("tr"), "ru": _read("ru")}
"""The texts of each language by their English text; a text with a number has a list of its plural forms."""
_FIELD = re.compile(r"\{(\d)\}")
_COUNT = re.compile(r"(\d[\d,]*) ([A-Za-z -]+)")
_NUMBER = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?|-?\d+\.\d+")
_OF_FIELD = re.compile(r"(`[^`]+`:?|'[^']+':) (.+)", re.DOTALL)
"""A message that begins with the name of a field, or with that of a file."""
_BETWEEN = re.compile(r"((?<=[.?!]) (?=[A-Z`'])|; |: )")
"""The space between two sentences, or the mark between two parts of a message."""
_MAX_PARTS, _MAX_LIST = 12, 400
"""Parts of a message, and signs of a list, up to which they are translated one by one."""
_MAX_WEAK_LETTERS = 4
"""A template with so few letters, such as `{0} of {1}`, is tried last, and for values only."""


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


class _Template(NamedTuple):
    """A translated message with the literal parts of its English template, between the values."""

    parts: tuple[str, ...]
    names: tuple[str, ...]
    translated: str
    longest: str
    """The longest literal part, which few texts have."""

    def values(self, text: str) -> dict[str, str] | None:
        """Return the values of the template in a text, each as short as possible; None if the text is another one."""
        first, *others = self.parts
        if not text.startswith(first):
            return None
        place = len(first)
        found: dict[str, str] = {}
        for number, part in enumerate(others):
            end = len(text) - len(part) if number == len(others) - 1 else text.find(part, place)
            if end < place or not text.startswith(part, end):
                return None
            value = text[place:end]
            if found.setdefault(self.names[number], value) != value or (self.is_quoted(number) and part[0] in value):
                return None
            place = end + len(part)
        return found if place == len(text) else None

    def n_signs(self) -> int:
        return len("".join(self.parts))

    def is_quoted(self, number: int) -> bool:
        """Whether a value stands in quotes or in code, so that it is a name."""
        before, after = self.parts[number][-1:], self.parts[number + 1][:1]
        return before != "" and before in "'`" and before == after


class Messages(NamedTuple):
    """The messages of a language that are worded in English; in each list the templates with the most signs first."""

    known: Mapping[str, str | list[str]]
    """By their template, whose values are numbered; nouns have plural forms."""
    anchored: list[_Template]
    """Those that begin with a literal part."""
    others: list[_Template]
    weak: list[_Template]


_messages: dict[Language, Messages] = {}


def messages_of(language: Language) -> Messages:
    """Return the messages of a language, which are read at their first use: they take a megabyte."""
    if language not in _messages:
        _messages[language] = _read_messages(language)
    return _messages[language]


def _read_messages(language: Language) -> Messages:
    found = Messages(_read(f"messages_{language}"), [], [], [])
    for english, translated in sorted(found.known.items()):
        split: list[str] = _FIELD.split(english)
        if len(split) > 1 and isinstance(translated, str):
            template = _Template(tuple(split[::2]), tuple(split[1::2]), translated, max(split[::2], key=len))
            is_weak = len([sign for sign in "".join(template.parts) if sign.isalpha()]) <= _MAX_WEAK_LETTERS
            group = found.anchored if template.parts[0] else found.weak if is_weak else found.others
            group.append(template)
    for group in (found.anchored, found.others, found.weak):
        group.sort(key=_Template.n_signs, reverse=True)
    return found


def told(message: str) -> str:
    """Return a message of the program in the reader's language; in English what no catalogue has."""
    language = _current.get()
    if language == "en":
        return message
    return "\n".join(_told(line, language) for line in message.split("\n"))


def _told(text: str, language: Language, *, is_value: bool = False) -> str:
    core = text.strip()
    bare = core.removesuffix(".")
    found = _whole(bare, language, is_value=is_value) if bare else bare
    if found == bare:
        return text
    end = "." if bare != core and found[-1:] not in ".?!…" else ""
    return text.replace(core, f"{found}{end}", 1)


def _whole(text: str, language: Language, *, is_value: bool) -> str:
    """Return a message without its full stop, translated by one template, or in its parts."""
    if (found := _matched(text, language)) is not None:
        return found
    if (parted := _in_parts(text, language)) != text or not is_value or len(text) > _MAX_LIST:
        return parted
    if (listed := _listed(text, language)) != text:
        return listed
    return _by_template(text, messages_of(language).weak, language) or text


def _matched(text: str, language: Language) -> str | None:
    """Return a message, or the problem behind the name of a field, translated by one template."""
    known = (
        messages_of(language).known.get(text) or CATALOGUES[language].get(text) or CATALOGUES[language].get(f"{text}.")
    )
    if isinstance(known, str):
        return known.removesuffix(".")
    if (counted := _counted(text, language)) is not None:
        return counted
    if (rendered := _by_template(text, messages_of(language).anchored, language)) is not None:
        return rendered
    if (named := _OF_FIELD.fullmatch(text)) is not None:
        name: str = named[1]
        problem: str = named[2]
        if (rest := _matched(problem, language)) is not None:
            return f"{name}{rest}" if rest.startswith(":") else f"{name} {rest}"
    return _by_template(text, messages_of(language).others, language)


def _by_template(text: str, templates: list[_Template], language: Language) -> str | None:
    for template in templates:
        if template.longest in text and (values := template.values(text)) is not None:
            return _rendered(template, values, language)
    return None


def _rendered(template: _Template, values: Mapping[str, str], language: Language) -> str:
    shown = {
        name: values[name] if template.is_quoted(number) else _told(values[name], language, is_value=True)
        for number, name in enumerate(template.names)
    }

    def value(field: re.Match[str]) -> str:
        name: str = field[1]
        return shown[name]

    return _FIELD.sub(value, template.translated).replace(" : ", ": ")


def _counted(text: str, language: Language) -> str | None:
    """Return a number, or a number of things, with the reader's marks and plural form; None for other texts."""
    thousands, decimal = _MARKS[language]
    marks = {ord(","): thousands, ord("."): decimal}
    if _NUMBER.fullmatch(text):
        return text.translate(marks)
    if (counted := _COUNT.fullmatch(text)) is None:
        return None
    digits: str = counted[1]
    noun: str = counted[2]
    for singular in (noun, noun.removesuffix("s")):
        forms = messages_of(language).known.get(f"{{count}} {singular}")
        if isinstance(forms, list):
            number = int(digits.replace(",", ""))
            return forms[_FORMS[language](number)].format(count=digits.translate(marks))
    return None


def _in_parts(text: str, language: Language) -> str:
    """Return a message of several sentences or parts, as long ones as possible translated by one template."""
    parts: list[str] = _BETWEEN.split(text, _MAX_PARTS)
    if len(parts) == 1:
        return text
    shown, start = "", 0
    while start < len(parts):
        ends = range(len(parts), start, -2)
        found = ((end, _matched("".join(parts[start:end]).removesuffix("."), language)) for end in ends)
        end, told_part = next(((end, one) for end, one in found if one is not None), (start + 1, None))
        whole = "".join(parts[start:end])
        stop = "." if told_part is not None and whole.endswith(".") and told_part[-1:] not in ".?!…" else ""
        shown += (whole if told_part is None else f"{told_part}{stop}") + "".join(parts[end : end + 1])
        start = end + 1
    return shown


def _listed(text: str, language: Language) -> str:
    """Return a list of phrases, each translated by itself; single words may be names."""
    names = text.split(", ", _MAX_PARTS)
    if len(names) == 1:
        return text
    listed = [_told(name, language, is_value=True) for name in names]
    is_known = any(" " in name and name != other for name, other in zip(names, listed, strict=True))
    return ", ".join(listed) if is_known else text
