"""Texts of answers and commands in Turkish and Russian: complete, without unused entries, within Discord's limits."""

import ast
import re
import string
from collections.abc import Iterable, Iterator
from contextvars import copy_context
from typing import Protocol, get_args, runtime_checkable

import discord
import pytest

from bot.app import build
from bot.commands.admin import TAKES
from bot.commands.compare import VALUES
from bot.commands.help import KINDS, all_commands
from bot.commands.settings import NOTIFY_LABELS, UNIT_LABELS
from bot.messages.advice import CHANGES
from bot.messages.answers import CARD_PLACES, STATE_SIGNS, SUBWORDS, UNITS, error_title
from bot.messages.inference import STOPS
from bot.messages.job_cards import TITLES
from bot.messages.text import Per
from bot.people.user_settings import CatalogueTranslator, set_language
from local_discord.limits import command_problems
from local_discord.wire import Json
from tests.support import ROOT
from tests.support.message_templates import JOINS, PARSERS, nouns, templates
from trainer.config.settings import Settings
from trainer.contracts.baselines import WARNINGS
from trainer.contracts.batteries import LEVELS
from trainer.contracts.errors import ErrorCode
from trainer.contracts.jobs import WorkerState
from trainer.contracts.operations import JOB_ROWS, OPERATIONS, Role
from trainer.contracts.units import UNIT_NOTE
from trainer.contracts.wording import WAIT_MESSAGES
from trainer.lab.language import (
    CATALOGUES,
    LANGUAGE_NAMES,
    Language,
    _,
    messages_of,
    numeral,
    plural,
    told,
    use_language,
)
from trainer.reports.run_report import RUN_FIELDS

_MAX_DESCRIPTION = 100
PER: tuple[str, ...] = get_args(Per)
WORKER_STATES: tuple[str, ...] = get_args(WorkerState)
TRANSLATED: tuple[Language, ...] = ("tr", "ru")
FORMS = {"tr": 1, "ru": 3}


def calls_in_code() -> Iterator[tuple[str, ast.Call]]:
    """Yield every call of a function in the code of the bot and of people, with its name."""
    for path in (*(ROOT / "bot").rglob("*.py"), *(ROOT / "trainer" / "lab").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield node.func.id, node


def texts_in_code() -> Iterator[tuple[str, bool]]:
    """Yield every text that the bot's code translates, and whether it has plural forms."""
    for function, node in calls_in_code():
        texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        if function in ("_", "plural") and texts:
            yield texts[0], function == "plural"
        elif function == "count" and texts:
            yield f"{{count}} {texts[0]}", True
    nouns = {one.chat.noun for one in OPERATIONS if one.chat}
    labels: list[str] = [*NOTIFY_LABELS.values(), *UNIT_LABELS.values(), *CHANGES.values(), *STOPS.values()]
    labels += [*VALUES.values(), *KINDS.values(), *filter(None, nouns), *STATE_SIGNS, *UNIT_LABELS, "run"]
    labels += [*CARD_PLACES.values(), *TITLES.values(), *(row.word for row in JOB_ROWS.values())]
    labels += [UNIT_NOTE, *(f"{unit}/{what}" for unit in UNIT_LABELS for what in PER)]
    labels += [*map(error_title, ErrorCode), *(role.value for role in Role)]
    labels += [*WAIT_MESSAGES.values(), *WARNINGS.values(), *TAKES.values(), *WORKER_STATES]
    labels += [*UNITS.values(), SUBWORDS, *LEVELS, *(field.title for field in RUN_FIELDS if field.is_on_card)]
    yield from ((label, False) for label in labels)
    yield from (found for found in texts_of_reports() if is_translated(found[0]))


def texts_of_reports() -> Iterator[tuple[str, bool]]:
    """Yield the texts of reports in Discord, and whether they have plural forms: of calls, and of constants."""
    folder = ROOT / "trainer" / "reports"
    others = [
        folder / f"{name}.py" for name in ("report_text", "run_notes", "leak_notes", "comparison", "seed_differences")
    ]
    results = [path for path in folder.glob("*_report.py") if path.stem not in ("run_report", "group_report")]
    trainer = folder.parent
    notes = [
        *(trainer / "batteries").glob("*.py"),
        *(trainer / "reading").glob("*.py"),
        trainer / "contracts" / "intervals.py",
        trainer / "data" / "rows.py",
        trainer / "worker" / "children" / "reading_child.py",
    ]
    for path in (*results, *others, *notes):
        module = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
                if node.func.id == "counted_note":
                    yield f"{{count}} {texts[0]}", True
                elif node.func.id in ("note", "column", "section") and texts:
                    yield texts[0], False
        constants = [] if path in notes else module.body
        for constant in (one.value for one in constants if isinstance(one, ast.AnnAssign | ast.Assign)):
            values = constant.values if isinstance(constant, ast.Dict) else [constant]
            yield from (
                (one.value, False) for one in values if isinstance(one, ast.Constant) and isinstance(one.value, str)
            )


def is_translated(text: str) -> bool:
    """Whether a text of a report has words: names in braces and signs are the same in each language."""
    return re.search(r"[a-z]{2}", re.sub(r"\{\w+\}", "", text)) is not None


@runtime_checkable
class Described(Protocol):
    """A command or a group."""

    description: str


@runtime_checkable
class Translatable(Protocol):
    """A command, a group or a menu with its texts in all languages."""

    async def get_translated_payload(self, tree: object, translator: object) -> Json: ...


def descriptions() -> set[str]:
    bot = build(Settings())
    parts: Iterable[object] = bot.tree.walk_commands()
    found = {part.description for part in parts if isinstance(part, Described)}
    return found | {str(option.description) for command in all_commands(bot) for option in command.parameters}


def choices() -> set[str]:
    options = (option for command in all_commands(build(Settings())) for option in command.parameters)
    return {choice.name for option in options for choice in option.choices}


@pytest.mark.parametrize("language", TRANSLATED)
def test_catalogue__has_every_text_and_no_other(language: Language) -> None:
    texts, known = dict(texts_in_code()), CATALOGUES[language]
    described = descriptions()
    assert sorted((texts.keys() | described) - known.keys()) == []
    assert sorted(known.keys() - texts.keys() - described - choices()) == []
    assert [text for text in described if len(known[text]) > _MAX_DESCRIPTION] == []
    for text, found in known.items():
        forms = found if isinstance(found, list) else [found]
        assert len(forms) == (FORMS[language] if texts.get(text) else 1)
        assert all(fields(form) == fields(text) for form in forms), text


WORDS = (
    *("run", "runs", "group", "training", "validation", "test", "recurrent", "transformer", "no document yet"),
    *("ms", "logit", "share"),
)
"""Values of messages that are words of the program."""
UNITS_OF_TIME = ("day", "hour", "minute", "s")


def messages() -> set[str]:
    """Return the keys of the catalogues of messages: templates, nouns with a number, and words."""
    words = {word for row in JOB_ROWS.values() for word in (row.word, row.words)}
    counted = {f"{{count}} {noun}" for noun in (*nouns(), *UNITS_OF_TIME, "document")}
    return {*templates(), *JOINS, *PARSERS, *WORDS, *words, *counted}


@pytest.mark.parametrize("language", TRANSLATED)
def test_messages__are_all_in_the_catalogue_and_no_other(language: Language) -> None:
    """So a message that is new or built in a way that the code does not show is noticed here."""
    known, wanted = messages_of(language).known, messages()
    of_answers = {text.removesuffix(".") for text in CATALOGUES[language]}
    assert sorted(wanted - known.keys() - of_answers) == []
    assert sorted(known.keys() - wanted) == []
    for template, found in known.items():
        forms = found if isinstance(found, list) else [found]
        assert len(forms) == (FORMS[language] if "{count}" in template else 1), template
        for form in forms:
            assert fields(form) == fields(template), template
            assert code_in(form) == code_in(template), template


def code_in(text: str) -> list[str]:
    """The parts of a text in code, which are the same in all languages."""
    found: list[str] = re.findall("`[^`]*`", text)
    return sorted(found)


@pytest.mark.parametrize(
    ("message", "russian", "turkish"),
    [
        (
            "Redis is unavailable; try again in a minute.",
            "Redis недоступен; повторите через минуту.",
            "Redis kullanılamıyor; bir dakika sonra yeniden deneyin.",
        ),
        (
            "`epochs` must be greater than or equal to 1, you gave 0.",
            "`epochs` должно быть не меньше 1, задано 0.",
            "`epochs` en az 1 olmalı, verilen 0.",
        ),
        (
            "`max_steps` is required; `seed` must be a valid integer, you gave 'ten'",
            "`max_steps` нужно указать; `seed` должно быть целым числом, задано 'ten'",
            "`max_steps` gerekli; `seed` tam sayı olmalı, verilen 'ten'",
        ),
        (
            "`learning_rate` must be a valid number or 'auto', you gave 'x'",
            "`learning_rate` должно быть числом или 'auto', задано 'x'",
            "`learning_rate` sayı veya 'auto' olmalı, verilen 'x'",
        ),
        (
            "`x` must match pattern 'a b', you gave 'c'",
            "`x` не соответствует образцу 'a b', задано 'c'",
            "`x` 'a b' kalıbına uymalı, verilen 'c'",
        ),
        (
            "The disk is full, so the scores could not be written: free some space.",
            "Диск заполнен, поэтому оценки не удалось записать: освободите место.",
            "Disk dolu, bu yüzden puanlar yazılamadı: yer açın.",
        ),
        (
            "Waiting for `a` and `b`, which train now; 3 other runs before it.",
            "Ожидание: сейчас обучаются `a` и `b`; впереди 3 других запуска.",
            "Bekleniyor: şu anda `a` ve `b` eğitiliyor; önünde 3 başka çalışma.",
        ),
        (
            "The run 'run' stays, because others need it: the battery 'b', a study of somebody else.",
            "Запуск 'run' остаётся, так как нужен другим: набор 'b', чужая работа (исследование).",
            "'run' çalışması kalıyor, çünkü başkalarına gerekli: sınama 'b', başkasının işi (araştırma).",
        ),
        (
            (
                "It has 29,400 parameters and needs about 0.1 GiB of memory and 2.5 MiB of disk."
                " It keeps 1 checkpoint: 1.2 MiB."
            ),
            (
                "Параметров: 29\u202f400; нужно около 0,1 ГиБ памяти и 2,5 МиБ диска."
                " Сохраняется 1 контрольная точка: 1,2 МиБ."
            ),
            (
                "29.400 parametresi var, yaklaşık 0,1 GiB bellek ve 2,5 MiB disk ister."
                " Saklanan 1 denetim noktası: 1,2 MiB."
            ),
        ),
        (
            "No catalogue has this sentence.",
            "No catalogue has this sentence.",
            "No catalogue has this sentence.",
        ),
    ],
)
def test_message__is_told_in_the_reader_s_language(message: str, russian: str, turkish: str) -> None:
    """Names in quotes and in code stay, also those that are words of the program."""

    def shown(language: Language) -> str:
        use_language(language)
        return told(message)

    assert [copy_context().run(shown, language) for language in LANGUAGE_NAMES] == [message, turkish, russian]


async def test_commands__fit_into_discords_limits_in_every_language() -> None:
    """Discord refuses all commands where one has more than 8,000 characters, and the bot does not start."""
    bot = build(Settings())
    translator = CatalogueTranslator()
    commands: Iterable[object] = bot.tree.get_commands()
    sent = [await one.get_translated_payload(bot.tree, translator) for one in commands if isinstance(one, Translatable)]
    assert len(sent) > 1 and [*command_problems(sent)] == []


def fields(text: str) -> set[str]:
    """The names in braces of a text of the code; descriptions have none."""
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize(
    ("locale", "number", "expected"),
    [
        ("en-US", 1, "1 worker"),
        ("en-US", 0, "0 workers"),
        ("de", 1000, "1\u202f000 workers"),
        ("tr", 1, "1 işçi"),
        ("tr", 1234, "1.234 işçi"),
        ("ru", 1, "1 рабочий процесс"),
        ("ru", 21, "21 рабочий процесс"),
        ("ru", 3, "3 рабочих процесса"),
        ("ru", 11, "11 рабочих процессов"),
        ("ru", 112, "112 рабочих процессов"),
        ("ru", 1_005, "1\u202f005 рабочих процессов"),
    ],
)
def test_number__has_the_reader_s_plural_form_and_marks(locale: str, number: int, expected: str) -> None:
    def shown() -> str:
        set_language(None, discord.Locale(locale))
        return plural("{count} worker", "{count} workers", number)

    assert copy_context().run(shown) == expected


def test_language__of_the_settings_is_before_that_of_discord() -> None:
    def shown() -> tuple[str, str]:
        set_language("ru", discord.Locale.turkish)
        return _("Deleted: {name}", name="{x}"), numeral(1234.5, ",.2f")

    assert copy_context().run(shown) == ("Удалено: {x}", "1\u202f234,50")
    assert _("No text of a catalogue") == "No text of a catalogue"


_LABELS = {"button": 80, "Field": 45, "form": 45, "select": 150, "run_select": 150}
"""Discord's limits on the texts of buttons, of fields and titles of forms, and of lists."""


def labels_in_code() -> Iterator[tuple[str, int]]:
    """Yield each fixed label of a button, a form or a list in the bot's code, and its limit."""
    for function, node in calls_in_code():
        for inner in node.args if function in _LABELS else ():
            if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id == "_":
                text = inner.args[0]
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    yield text.value, _LABELS[function]


@pytest.mark.parametrize("language", TRANSLATED)
def test_labels__are_within_discord_s_limits(language: Language) -> None:
    labels = dict(labels_in_code())
    assert len(labels) > 40
    assert [text for text, limit in labels.items() if len(CATALOGUES[language][text]) > limit] == []
