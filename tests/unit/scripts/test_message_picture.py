"""HTML of messages for the pictures: Markdown as Discord shows it, and user text as text."""

import re

from local_discord.wire import Json
from scripts.message_picture import message_html, shown_lines
from tests.support import ROOT


def shown(description: str) -> str:
    payload: Json = {"embeds": [{"color": 255, "title": "t", "description": description}]}
    _, _, rest = message_html(payload, lambda file: b"").partition('<div class="text">')
    return rest.partition("</div>")[0]


def test_description__is_shown_as_by_discord_and_text_of_users_stays() -> None:
    assert shown("**a `b`** <@7>") == '<b>a <code>b</code></b> <span class="mention">@7</span>'
    assert shown("a\n```\nb **c**\n```\nd") == "a\n<pre>b **c**</pre>d"
    assert shown("<t:0:R>").endswith(" hours ago</span>")
    assert shown("\\*a\\_b\\* <b> **&**") == "*a_b* &lt;b&gt; <b>&amp;</b>"


def test_buttons_and_files__have_their_labels() -> None:
    button: Json = {"type": 2, "style": 4, "label": "Cancel <"}
    payload: Json = {
        "flags": 64,
        "components": [{"type": 1, "components": [button]}],
        "attachments": [{"url": "u", "filename": "a.csv", "size": 1234, "content_type": "text/csv"}],
    }
    html = message_html(payload, lambda file: b"")
    assert all(part in html for part in ("Cancel &lt;", "a.csv · 1,234 bytes", "Only you can see this"))
    assert shown_lines(html) == ["Model TrainerAPP", "📄 a.csv · 1,234 bytes", "Cancel <", "👁 Only you can see this"]


def test_pages__show_every_picture_with_a_description() -> None:
    pages = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("discord.md", "page.md"))
    described: list[str] = re.findall(r"!\[[^\]]+\]\(pictures/([\w-]+\.png)\)", pages)
    assert sorted(described) == sorted(path.name for path in (ROOT / "docs" / "pictures").glob("*.png"))
