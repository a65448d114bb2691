"""The languages of Discord's readers, and its translations of commands."""

import discord
from discord import app_commands

from trainer.people.language import CATALOGUES, Language, use_language

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
