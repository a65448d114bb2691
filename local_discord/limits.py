"""Limits that Discord documents in prose and its OpenAPI description leaves out."""

from collections.abc import Iterator

from pydantic import JsonValue

from local_discord.validation import Path, Problem
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


def message_problems(body: Json) -> list[Problem]:
    """Return the problems of a message body with limits of content, embeds, mentions and components.

    Source: Discord's reference, pages Message (Embed Limits) and Component Reference.
    """
    return [*_text_problems(body), *_embed_problems(body), *_mention_problems(body), *_component_problems(body)]


def is_empty(body: Json) -> bool:
    return not any(body.get(part) for part in ("content", "embeds", "components", "attachments", "poll", "sticker_ids"))


def modal_problems(data: Json) -> list[Problem]:
    problems = _duplicates(data.get("components"), ("data", "components"))
    if len(items(data.get("components"))) > 5:
        problems.append(Problem(("data", "components"), "BASE_TYPE_BAD_LENGTH", "Must be 5 or fewer in length."))
    return problems


def choice_problems(choices: JsonValue, option_type: int, path: Path) -> list[Problem]:
    """Return the problems of choices: values of the option's type, text of at most 100 characters."""
    problems: list[Problem] = []
    for index, choice in enumerate(rows(choices)):
        value = choice.get("value")
        fits = {3: isinstance(value, str), 4: isinstance(value, int), 10: isinstance(value, int | float)}
        if not fits.get(option_type, False) or isinstance(value, bool):
            problems.append(Problem((*path, index, "value"), "BASE_TYPE_BAD_TYPE", "Not of the option's type."))
        elif len(text(value)) > CHOICE_VALUE:
            problems.append(_too_long((*path, index, "value"), CHOICE_VALUE))
    return problems


def command_problems(commands: list[Json]) -> list[Problem]:
    """Return the problems of commands: names, order of options, choices, and 8,000 characters per command.

    Source: Discord's reference, page Application Commands.
    """
    problems: list[Problem] = []
    for index, command in enumerate(commands):
        problems += _name_problems(command, (index,))
        if not text(command.get("description")):
            problems.append(_required((index, "description")))
        if _command_size(command) > COMMAND_TOTAL:
            problems.append(_too_long((index,), COMMAND_TOTAL))
        problems += _option_problems(command, (index, "options"))
    return problems


def walk(components: JsonValue, path: Path = ()) -> Iterator[tuple[Path, Json]]:
    """Yield every component of a message or modal with its path, outermost first."""
    for index, component in enumerate(rows(components)):
        yield (*path, index), component
        yield from walk(component.get("components"), (*path, index, "components"))
        for slot in ("component", "accessory"):
            if slot in component:
                inner: JsonValue = [component[slot]]
                yield from (((*path, index, slot), found) for _, found in walk(inner))


def _text_problems(body: Json) -> list[Problem]:
    too_long = len(text(body.get("content"))) > MESSAGE_CONTENT
    return [_too_long(("content",), MESSAGE_CONTENT)] if too_long else []


def _embed_problems(body: Json) -> Iterator[Problem]:
    total = 0
    for index, embed in enumerate(rows(body.get("embeds"))):
        parts = [embed.get("title"), embed.get("description"), mapping(embed.get("footer")).get("text")]
        total += sum(len(text(part)) for part in parts)
        if not any(parts) and not embed.get("image"):
            yield _required(("embeds", index, "description"))
    if total > EMBEDS_TOTAL:
        message = f"Embed size exceeds maximum size of {EMBEDS_TOTAL}"
        yield Problem(("embeds",), "MAX_EMBED_SIZE_EXCEEDED", message)


def _mention_problems(body: Json) -> Iterator[Problem]:
    allowed = mapping(body.get("allowed_mentions"))
    for key in ("users", "roles"):
        if allowed.get(key) and key in items(allowed.get("parse")):
            message = f'parse:["{key}"] and {key}: [ids...] are mutually exclusive.'
            yield Problem(("allowed_mentions",), "MESSAGE_ALLOWED_MENTIONS_PARSE_EXCLUSIVE", message)


def _component_problems(body: Json) -> Iterator[Problem]:
    tree = list(walk(body.get("components"), ("components",)))
    if len(tree) > 40:
        yield Problem(("components",), "BASE_TYPE_BAD_LENGTH", "At most 40 components in all.")
    if len(items(body.get("components"))) > 5:
        yield Problem(("components",), "BASE_TYPE_BAD_LENGTH", "Must be between 1 and 5 in length.")
    for path, component in tree:
        kind = component.get("type")
        inner = rows(component.get("components"))
        if kind == ACTION_ROW and len(inner) > 1 and any(item.get("type") in SELECTS for item in inner):
            yield Problem((*path, "components"), "COMPONENT_LAYOUT_WIDTH_EXCEEDED", "A select fills its row.")
        if kind == BUTTON:
            yield from _button_problems(component, path)
    yield from _duplicates(body.get("components"), ("components",))


def _button_problems(button: Json, path: Path) -> Iterator[Problem]:
    for key in ("custom_id", "label"):
        if not button.get(key):
            yield _required((*path, key))


def _duplicates(components: JsonValue, prefix: Path) -> list[Problem]:
    seen: set[str] = set()
    problems: list[Problem] = []
    for path, component in walk(components, prefix):
        custom_id = text(component.get("custom_id"))
        if custom_id and custom_id in seen:
            message = "Component custom id cannot be duplicated"
            problems.append(Problem((*path, "custom_id"), "COMPONENT_CUSTOM_ID_DUPLICATED", message))
        seen.add(custom_id)
    return problems


def _option_problems(command: Json, path: Path) -> Iterator[Problem]:
    options = rows(command.get("options"))
    names = [text(option.get("name")) for option in options]
    nested = [number(option.get("type")) in (1, 2) for option in options]
    if any(nested) and not all(nested):
        yield Problem(path, "APPLICATION_COMMAND_OPTIONS_TYPE_INVALID", "Sub-commands do not mix with options.")
    for index, option in enumerate(options):
        at: Path = (*path, index)
        yield from _name_problems(option, at)
        if names.index(names[index]) != index:
            message = "Option names must be unique"
            yield Problem((*at, "name"), "APPLICATION_COMMAND_OPTIONS_NAME_ALREADY_EXISTS", message)
        if option.get("required") and any(not earlier.get("required") for earlier in options[:index]):
            message = "Required options must be placed before non-required options"
            yield Problem(at, "APPLICATION_COMMAND_OPTIONS_REQUIRED_INVALID", message)
        if option.get("autocomplete") and option.get("choices"):
            yield Problem((*at, "autocomplete"), "BASE_TYPE_INVALID", "Not together with choices.")
        yield from choice_problems(option.get("choices"), number(option.get("type")), (*at, "choices"))
        yield from _option_problems(option, (*at, "options"))


def _name_problems(owner: Json, path: Path) -> Iterator[Problem]:
    name = text(owner.get("name"))
    if name != name.lower() or not all(sign.isalnum() or sign in "-_'" for sign in name):
        yield Problem((*path, "name"), "APPLICATION_COMMAND_INVALID_NAME", "Command name is invalid")


def _command_size(part: Json) -> int:
    own = sum(len(text(part.get(key))) for key in ("name", "description", "value"))
    return own + sum(_command_size(inner) for key in ("options", "choices") for inner in rows(part.get(key)))


def _too_long(path: Path, limit: int) -> Problem:
    return Problem(path, "BASE_TYPE_MAX_LENGTH", f"Must be {limit} or fewer in length.")


def _required(path: Path) -> Problem:
    return Problem(path, "BASE_TYPE_REQUIRED", "This field is required")
