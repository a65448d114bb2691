"""Messages for people who see no picture or no colour: descriptions of images, and signs in titles."""

import ast
from collections.abc import Iterator

from tests.support import ROOT


def calls(name: str) -> Iterator[tuple[str, ast.Call]]:
    """Yield each call of a function or a method in the bot's code, with its module."""
    for path in sorted((ROOT / "bot").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and name == (
                node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
            ):
                yield path.stem, node


def first_character(title: ast.expr) -> str:
    """The first character of a title in the code; empty if it is not a literal text."""
    start = title.values[0] if isinstance(title, ast.JoinedStr) else title
    return start.value[:1] if isinstance(start, ast.Constant) and isinstance(start.value, str) else ""


def test_images__have_descriptions_for_screen_readers() -> None:
    with_image = {module for module, _ in calls("set_image")}
    files = [file for module, file in calls("File") if module in with_image]
    assert {"text", "report_card", "inference"} <= with_image and len(files) >= len(with_image)
    described = {module for module, _ in calls("attach_picture")}  # which must be given a description
    assert {"run_card", "compare", "group_subject"} <= described
    assert all("description" in [keyword.arg for keyword in file.keywords] for file in files)


def test_cards__have_a_sign_before_their_title() -> None:
    titles = [first_character(call.args[1]) for _, call in calls("make_embed")]
    signs = [sign for sign in titles if sign]
    assert len(signs) > 40
    assert [sign for sign in signs if sign.isalnum() or sign.isspace()] == []
