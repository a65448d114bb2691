"""`/mt settings`: a form with the caller's own settings."""

import asyncio
from collections.abc import Mapping, Sequence

import discord
from discord import app_commands

from bot.commands.responses import Answer, ButtonAnswer, CommandContext, open_form
from bot.commands.run_options import find_run, fitting_runs
from bot.messages.buttons import MAX_OPTIONS, ButtonPress, Selection, form, option
from bot.messages.text import GREEN, make_embed, plain
from bot.people.user_settings import Notify, UserSettings, set_language
from bot.session.client import Bot
from trainer.config.validation import parse
from trainer.contracts.units import UNIT_NOTE, Unit
from trainer.lab.language import LANGUAGE_NAMES, _

_OWN = "own"
_DEFAULT = "default"

NOTIFY_LABELS: dict[Notify, str] = {
    "dm": "Direct messages",
    "here": "The channel of the command",
    "off": "No messages",
}
UNIT_LABELS: dict[Unit, str] = {"bits": "Bits", "nats": "Nats"}


@app_commands.command(description="Choose your language, notifications, default run and unit.")
async def settings(interaction: discord.Interaction[Bot]) -> None:
    await open_form(interaction, "settings", _form)


async def _form(context: CommandContext) -> discord.ui.Modal:
    current = context.bot.user_settings.of(context.caller.user_id)
    await context.lab.index.catch_up()
    languages = {_DEFAULT: _("That of your Discord"), **{str(code): name for code, name in LANGUAGE_NAMES.items()}}
    notify: dict[str, str] = {value: _(label) for value, label in NOTIFY_LABELS.items()}
    units = {
        _DEFAULT: _default_unit(context.bot.user_settings.default_unit),
        **{str(value): _(label) for value, label in UNIT_LABELS.items()},
    }
    return form(
        "settings",
        _OWN,
        _("Your settings"),
        Selection("language", _("Language of answers"), _options(languages, current.language or _DEFAULT)),
        Selection("notify", _("Messages about new runs"), _options(notify, current.notify)),
        Selection("default_run", _("Default run"), _options(_runs(context, current), current.default_run or _DEFAULT)),
        Selection("unit", _("Unit"), _options(units, current.unit or _DEFAULT), _(UNIT_NOTE)),
    )


def _runs(context: CommandContext, current: UserSettings) -> dict[str, str]:
    """Return the shown names of the completed runs that the caller may use, the default run first, then own ones."""
    runs = fitting_runs(context, "score")
    first = [run for run in runs if run.run_id == current.default_run]
    names = {_DEFAULT: _("The newest completed run")}
    for run in (*first, *runs):
        if len(names) < MAX_OPTIONS:
            names.setdefault(run.run_id, run.name)
    return names


def _options(labels: Mapping[str, str], selected: str) -> Sequence[discord.SelectOption]:
    """Return the options of a list; the first one is selected if `selected` is none of them."""
    selected = selected if selected in labels else next(iter(labels))
    return [option(value, label, default=value == selected) for value, label in labels.items()]


async def _save(context: CommandContext, press: ButtonPress) -> Answer:
    values: dict[str, object] = {name: None if value == _DEFAULT else value for name, value in press.fields.items()}
    chosen = parse(UserSettings, values)
    name: str | None = None
    if chosen.default_run is not None:
        run = await find_run(context, "score", chosen.default_run)
        await asyncio.to_thread(run.directory.completed_manifest)
        name = run.record.effective.label or run.record.run_id
    await context.bot.user_settings.save(context.caller.user_id, chosen)
    if chosen.language is not None:
        set_language(chosen.language, discord.Locale.american_english)
    return Answer(settings_answer(chosen, name, context.bot.user_settings.default_unit))


FORMS = {"settings": ButtonAnswer("settings", _save)}


def settings_answer(settings: UserSettings, run_name: str | None, default_unit: Unit) -> discord.Embed:
    """Return the stored settings; `run_name` is the name of the default run, `default_unit` the unit of the bot."""
    language = _("That of your Discord") if settings.language is None else LANGUAGE_NAMES[settings.language]
    run = _("The newest completed run") if run_name is None else plain(run_name)
    rows = [
        (_("Language of answers"), language),
        (_("Messages about new runs"), _(NOTIFY_LABELS[settings.notify])),
        (_("Default run"), run),
        (_("Unit"), _default_unit(default_unit) if settings.unit is None else _(UNIT_LABELS[settings.unit])),
    ]
    lines = [*(f"{label}: **{value}**" for label, value in rows), _(UNIT_NOTE)]
    return make_embed(GREEN, f"⚙ {_('Settings saved')}", lines)


def _default_unit(unit: Unit) -> str:
    return _("That of this bot: {unit}", unit=_(unit))
