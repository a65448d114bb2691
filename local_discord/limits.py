"""Limits that Discord documents in prose and its OpenAPI description leaves out.

Source: Discord's reference, pages Message (Embed Limits), Component Reference and Application Commands.
"""

from collections.abc import Iterator

from pydantic import JsonValue

from local_discord.validation import Path, Problem, required, too_long
from local_discord.wire import Json, items, mapping, number, rows, text

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

ACTION_ROW, BUTTON, TEXT_INPUT, LABEL = 1, 2, 4, 18
SELECTS = (3, 5, 6, 7, 8)
OPTION_TYPES: dict[int, tuple[type, ...]] = {3: (str,), 4: (int,), 5: (bool,), 10: (int, float)}


def message_problems(body: Json) -> Iterator[Problem]:
    """Yield the problems of a message body with limits of content, embeds, mentions and components."""
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
    allowed = mapping(body.get("allowed_mentions"))
    for key in ("users", "roles"):
        if allowed.get(key) and key in items(allowed.get("parse")):
            message = f'parse:["{key}"] and {key}: [ids...] are mutually exclusive.'
            yield Problem(("allowed_mentions",), "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE", message)
    yield from component_problems(body.get("components"), ("components",))


def component_problems(components: JsonValue, path: Path) -> Iterator[Problem]:
    """Yield the problems of the components of a message or modal."""
    if len(items(components)) > 5:
        yield Problem(path, "BASE_TYPE_BAD_LENGTH", "Must be 5 or fewer in length.")
    seen: set[str] = set()
    for at, component in walk(components, path):
        custom_id = text(component.get("custom_id"))
        kinds = [inner.get("type") for inner in rows(component.get("components"))]
        if component.get("type") == ACTION_ROW and len(kinds) > 1 and any(kind in SELECTS for kind in kinds):
            yield Problem((*at, "components"), "COMPONENT_LAYOUT_WIDTH_EXCEEDED", "A select fills its row.")
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


def choice_problems(choices: JsonValue, option_type: int, path: Path) -> Iterator[Problem]:
    """Yield the problems of choices: values of the option's type, text of at most 100 characters."""
    for index, choice in enumerate(rows(choices)):
        value = choice.get("value")
        if not isinstance(value, OPTION_TYPES.get(option_type, ())) or isinstance(value, bool):
            yield Problem((*path, index, "value"), "BASE_TYPE_BAD_TYPE", "Not of the option's type.")
        elif len(text(value)) > CHOICE_VALUE:
            yield too_long((*path, index, "value"), CHOICE_VALUE)


def command_problems(commands: list[Json]) -> Iterator[Problem]:
    """Yield the problems of commands: names, order of options, choices, and 8,000 characters per command."""
    for index, command in enumerate(commands):
        if not text(command.get("description")):
            yield required((index, "description"))
        if _command_size(command) > COMMAND_TOTAL:
            yield too_long((index,), COMMAND_TOTAL)
        yield from _option_problems(command, (index,))


def _option_problems(owner: Json, path: Path) -> Iterator[Problem]:
    """Yield the problems of a command or option: its name, its choices and its options."""
    name, options = text(owner.get("name")), rows(owner.get("options"))
    if name != name.lower() or not all(sign.isalnum() or sign in "-_'" for sign in name):
        yield Problem((*path, "name"), "APPLICATION_COMMAND_INVALID_NAME", "Command name is invalid")
    if owner.get("autocomplete") and owner.get("choices"):
        yield Problem((*path, "autocomplete"), "BASE_TYPE_INVALID", "Not together with choices.")
    yield from choice_problems(owner.get("choices"), number(owner.get("type")), (*path, "choices"))
    if len({number(option.get("type")) in (1, 2) for option in options}) > 1:
        message = "Sub-commands do not mix with options."
        yield Problem((*path, "options"), "APPLICATION_COMMAND_OPTIONS_TYPE_INVALID", message)
    names: set[str] = set()
    is_optional = False
    for index, option in enumerate(options):
        at: Path = (*path, "options", index)
        if text(option.get("name")) in names:
            message = "Option names must be unique"
            yield Problem((*at, "name"), "APPLICATION_COMMAND_OPTIONS_NAME_ALREADY_EXISTS", message)
        if option.get("required") and is_optional:
            message = "Required options must be placed before non-required options"
            yield Problem(at, "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID", message)
        names.add(text(option.get("name")))
        is_optional = not option.get("required")
        yield from _option_problems(option, at)


def _command_size(part: Json) -> int:
    own = sum(len(text(part.get(key))) for key in ("name", "description", "value"))
    return own + sum(_command_size(inner) for key in ("options", "choices") for inner in rows(part.get(key)))
