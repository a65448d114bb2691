"""Limits that Discord documents in prose, and that neither its OpenAPI description has nor discord.py checks.

Source: Discord's reference, pages Message (Embed Limits), Component Reference and Application Commands.
"""

from collections.abc import Iterator

from pydantic import JsonValue

from local_discord.validation import Path, Problem, required, too_long
from local_discord.wire import Json, mapping, rows, text

MESSAGE_CONTENT = 2000
EMBEDS_TOTAL = 6000
COMMAND_TOTAL = 8000
CHOICE_VALUE = 100
ATTACHMENT_BYTES = 10 * 1024 * 1024
ANSWER_SECONDS = 3.0
PATIENCE_SECONDS = 300.0
"""Default timeout of waits; a busy machine is slow."""
TOKEN_SECONDS = 15 * 60.0
NONCE_SECONDS = 5 * 60.0

EPHEMERAL = 1 << 6
LOADING = 1 << 7

MESSAGE_MENU = 3
"""The type of a command in the menu of a message."""
BUTTON, SELECT, TEXT_INPUT, LABEL = 2, 3, 4, 18


def message_problems(body: Json) -> Iterator[Problem]:
    """Yield the problems of a message body with limits of content, embeds and components."""
    if len(text(body.get("content"))) > MESSAGE_CONTENT:
        yield too_long(("content",), MESSAGE_CONTENT)
    total = 0
    for index, embed in enumerate(rows(body.get("embeds"))):
        parts = [embed.get("title"), embed.get("description"), mapping(embed.get("footer")).get("text")]
        total += sum(len(text(part)) for part in parts)
        if not any(parts) and not embed.get("image"):
            yield required(("embeds", index, "description"))
    if total > EMBEDS_TOTAL:
        message = f"Embed size exceeds maximum size of {EMBEDS_TOTAL}"
        yield Problem(("embeds",), "MAX_EMBED_SIZE_EXCEEDED", message)
    yield from component_problems(body.get("components"), ("components",))


def component_problems(components: JsonValue, path: Path) -> Iterator[Problem]:
    """Yield the problems of the components of a message or modal."""
    seen: set[str] = set()
    for at, component in walk(components, path):
        custom_id = text(component.get("custom_id"))
        if component.get("type") == BUTTON:
            yield from (required((*at, key)) for key in ("custom_id", "label") if not component.get(key))
        if custom_id and custom_id in seen:
            message = "Component custom id cannot be duplicated"
            yield Problem((*at, "custom_id"), "COMPONENT_CUSTOM_ID_DUPLICATED", message)
        seen.add(custom_id)


def walk(components: JsonValue, path: Path = ()) -> Iterator[tuple[Path, Json]]:
    """Yield every component of a message or modal with its path, outermost first."""
    for index, component in enumerate(rows(components)):
        yield (*path, index), component
        yield from walk(component.get("components"), (*path, index, "components"))
        yield from walk([component.get("component")], (*path, index, "component"))


def choice_problems(choices: JsonValue, path: Path) -> Iterator[Problem]:
    """Yield the problems of suggested choices: a text of more than 100 characters."""
    for index, choice in enumerate(rows(choices)):
        if len(text(choice.get("value"))) > CHOICE_VALUE:
            yield too_long((*path, index, "value"), CHOICE_VALUE)


def command_problems(commands: list[Json]) -> Iterator[Problem]:
    """Yield the problems of commands: a description is missing, or is that of a menu; more than 8,000 characters."""
    for index, command in enumerate(commands):
        has_description = bool(text(command.get("description")))
        if command.get("type") == MESSAGE_MENU and has_description:
            yield too_long((index, "description"), 0)
        elif command.get("type") != MESSAGE_MENU and not has_description:
            yield required((index, "description"))
        if _command_size(command) > COMMAND_TOTAL:
            yield too_long((index,), COMMAND_TOTAL)


def _command_size(part: Json) -> int:
    """Return the characters of a command; of a text with localizations, the longest counts."""
    own = len(text(part.get("value")))
    for key in ("name", "description"):
        localized = mapping(part.get(f"{key}_localizations")).values()
        own += max(len(text(one)) for one in (part.get(key), *localized))
    return own + sum(_command_size(inner) for key in ("options", "choices") for inner in rows(part.get(key)))
