"""Settings of each Discord user, one file with mode 0600 per user."""

import asyncio
import os
from contextvars import ContextVar
from pathlib import Path
from typing import BinaryIO, Literal

import discord
import structlog
from discord import app_commands

from trainer.contracts.base import Frozen, Identifier
from trainer.contracts.units import Unit
from trainer.lab.language import CATALOGUES, Language, use_language
from trainer.system.files import Disk, read_record, write_atomically

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(__name__)

Notify = Literal["dm", "here", "off"]

_unit: ContextVar[Unit] = ContextVar("unit", default="bits")


def use_unit(unit: Unit) -> None:
    """Set the unit of losses and surprisals in the current task's messages."""
    _unit.set(unit)


def current_unit() -> Unit:
    return _unit.get()


class UserSettings(Frozen):
    """The choices of a user in `/mt settings`."""

    schema_version: Literal[1] = 1
    language: Language | None = None
    """Language of answers; None: that of the user's Discord."""
    notify: Notify = "dm"
    """Place of the messages about a new run: direct messages, the channel of its command, or none."""
    default_run: Identifier | None = None
    """Run of commands that use a completed run, if no run is given."""
    unit: Unit | None = None
    """Unit of losses and surprisals; None: that of the bot's settings."""


class UserSettingsStore:
    """All users' settings, in memory and in a folder."""

    def __init__(self, folder: Path, default_unit: Unit = "bits") -> None:
        self._folder = folder
        self.default_unit = default_unit
        self._settings: dict[int, UserSettings] = {}
        for path in folder.glob("[0-9]*.json"):
            try:
                self._settings[int(path.stem)] = read_record(path, UserSettings)
            except (OSError, ValueError) as error:
                log.warning("user_settings_unreadable", file=path.name, error=type(error).__name__)

    def of(self, user_id: int) -> UserSettings:
        """Return the settings of a user, or the defaults."""
        return self._settings.get(user_id) or UserSettings()

    def unit_of(self, user_id: int) -> Unit:
        """Return the unit of a user: the chosen one, or else the default."""
        return self.of(user_id).unit or self.default_unit

    async def save(self, user_id: int, settings: UserSettings) -> None:
        """Store the settings of a user; durable on return."""
        data = settings.model_dump_json(indent=1).encode()
        await asyncio.to_thread(self._write, self._folder / f"{user_id}.json", data)
        self._settings[user_id] = settings

    def _write(self, path: Path, data: bytes) -> None:
        _PRIVATE_DISK.make_folder(self._folder)
        write_atomically(path, data, _PRIVATE_DISK)


class _PrivateDisk(Disk):
    """A disk whose new files only this program's user can read."""

    def write(self, path: Path, data: bytes | BinaryIO) -> None:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        super().write(path, data)


_PRIVATE_DISK = _PrivateDisk()


_LOCALES: dict[discord.Locale, Language] = {discord.Locale.turkish: "tr", discord.Locale.russian: "ru"}


def set_language(chosen: Language | None, locale: discord.Locale) -> None:
    """Set the language of the current task's answers: the chosen one, or else that of the reader's Discord."""
    use_language(chosen or _LOCALES.get(locale, "en"))


class CatalogueTranslator(app_commands.Translator):
    """Translates descriptions and choices of commands; names of commands and options stay as they are typed."""

    async def translate(
        self,
        string: app_commands.locale_str,
        locale: discord.Locale,
        context: app_commands.TranslationContextTypes,
    ) -> str | None:
        if locale not in _LOCALES or context.location not in _TRANSLATED:
            return None
        found = CATALOGUES[_LOCALES[locale]].get(string.message)
        return found if isinstance(found, str) else None


_TRANSLATED = (
    app_commands.TranslationContextLocation.command_description,
    app_commands.TranslationContextLocation.group_description,
    app_commands.TranslationContextLocation.parameter_description,
    app_commands.TranslationContextLocation.choice_name,
)
