"""Pictures of messages as Discord shows them: a message's payload becomes HTML, and Chromium takes the picture."""

import io
import re
import shutil
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from html import escape, unescape
from pathlib import Path
from urllib.parse import unquote

from PIL import Image

from local_discord.markdown import Span, spans
from local_discord.wire import Json, mapping, number, rows, text

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
WIDTH, _MAX_HEIGHT, _SCALE, _COLOURS = 620, 2400, 1.5, 192
_EPHEMERAL = 1 << 6
_BUTTON_STYLES = {1: "#5865f2", 3: "#248046", 4: "#da373c"}
_OTHER_BUTTON = "#4e5058"
_STYLE = """
@font-face { font-family: Emoji; src: local('Noto Color Emoji'); unicode-range: U+2600-27BF }
body { margin: 0; color: #dbdee1; font: 15px/1.4 Emoji, 'DejaVu Sans', 'Noto Color Emoji', sans-serif }
main { width: 596px; padding: 12px; background: #313338; border-radius: 8px; display: inline-block }
.asked { color: #b5bac1; font-size: 13px; margin-bottom: 6px }
.asked b { color: #00a8fc }
.who { font-weight: bold; color: #f2f3f5 }
.app { background: #5865f2; color: #fff; font-size: 10px; padding: 1px 4px; border-radius: 3px; margin-left: 4px }
.embed { background: #2b2d31; border-left: 4px solid; border-radius: 4px; padding: 8px 14px 12px 12px; margin-top: 6px }
.title { font-weight: bold; color: #f2f3f5; margin: 4px 0 6px }
.text { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 14px }
.footer, .note { font-size: 12px; color: #b5bac1; margin-top: 8px }
img { max-width: 100%; border-radius: 4px; margin-top: 10px }
code, pre { background: #1e1f22; border-radius: 3px; font-family: 'DejaVu Sans Mono', monospace }
code { padding: 1px 3px; font-size: 13px }
pre { padding: 7px; margin: 4px 0; font-size: 12px; white-space: pre-wrap; overflow-wrap: anywhere }
.mention { background: #3c4270; color: #c9cdfb; border-radius: 3px; padding: 0 2px }
.link { color: #00a8fc }
.time { background: #3f4147; border-radius: 3px; padding: 0 2px }
.row { margin-top: 8px }
.button { display: inline-block; color: #fff; border-radius: 4px; padding: 5px 14px; margin: 0 8px 4px 0 }
.button, .input { font-size: 14px }
.select, .input { background: #1e1f22; border-radius: 4px; padding: 8px 12px; color: #949ba4; white-space: pre-wrap }
.file { background: #2b2d31; border-radius: 6px; padding: 8px 12px; margin-top: 6px; color: #00a8fc }
.label { font-weight: bold; margin: 10px 0 4px }
"""

Read = Callable[[Json], bytes]
"""Returns the bytes of an attachment."""


def message_html(payload: Json, read: Read, *, asked: str = "", names: Mapping[str, str] | None = None) -> str:
    """Return a message as HTML, below the command that it answers; `names` are people and channels by id."""
    files = {text(file["url"]): file for file in rows(payload.get("attachments"))}
    shown = {text(mapping(embed.get("image")).get("url")) for embed in rows(payload.get("embeds"))}
    parts = [f'<div class="asked">{asked}</div>' if asked else ""]
    parts.append('<span class="who">Model Trainer</span><span class="app">APP</span>')
    if text(payload.get("content")):
        parts.append(f'<div class="text">{_markdown(text(payload["content"]), names or {})}</div>')
    for embed in rows(payload.get("embeds")):
        parts += _embed(embed, files, read, names or {})
    for url, file in files.items():
        if url not in shown:
            parts.append(_file(file, read))
    parts += [_components(row) for row in rows(payload.get("components"))]
    if number(payload.get("flags")) & _EPHEMERAL:
        parts.append('<div class="note">👁 Only you can see this</div>')
    return "".join(parts)


def form_html(form: Json) -> str:
    """Return a form (modal) as HTML."""
    parts = [f'<div class="title">{escape(text(form.get("title")))}</div>']
    for label in rows(form.get("components")):
        field = mapping(label.get("component"))
        value = text(field.get("value")) or text(field.get("placeholder")) or " "
        chosen = [text(option["label"]) for option in rows(field.get("options")) if option.get("default") is True]
        parts.append(f'<div class="label">{escape(text(label.get("label")))}</div>')
        parts.append(f'<div class="input">{escape(", ".join(chosen) or value)}</div>')
    return "".join([*parts, '<div class="row"><span class="button" style="background:#5865f2">Submit</span></div>'])


def shown_lines(html: str) -> list[str]:
    """Return the words of HTML that a reader of its picture sees, by the lines of the source."""
    lines = re.sub(r'<br>|</?div[^>]*>|<span class="button"', r"\n\g<0>", html)
    words = re.sub(r"<[^>]*>", "", lines)
    return [line for line in map(str.strip, unescape(words).splitlines()) if line]


def draw(html: str, target: Path) -> None:
    """Draw HTML as a PNG of few colours, cut to its size; needs Chromium."""
    if CHROMIUM is None:
        raise SystemExit("This needs Chromium on the PATH: `make browser` installs it on Debian.")
    with tempfile.TemporaryDirectory() as folder:
        page, shot = Path(folder, "page.html"), Path(folder, "shot.png")
        page.write_text(f'<!doctype html><meta charset="utf-8"><style>{_STYLE}</style><main>{html}</main>', "utf-8")
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += [f"--window-size={WIDTH},{_MAX_HEIGHT}", f"--force-device-scale-factor={_SCALE}"]
        options += ["--default-background-color=00000000", f"--screenshot={shot}", page.as_uri()]
        subprocess.run([CHROMIUM, *options], check=True, capture_output=True, timeout=120)
        picture = Image.open(io.BytesIO(shot.read_bytes()))
    box = picture.getchannel("A").getbbox()
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.crop(box).quantize(_COLOURS, Image.Quantize.FASTOCTREE).save(target, optimize=True)


def _embed(embed: Json, files: Mapping[str, Json], read: Read, names: Mapping[str, str]) -> Iterator[str]:
    yield f'<div class="embed" style="border-color:#{number(embed.get("color")):06x}">'
    yield f'<div class="title">{_markdown(text(embed.get("title")), names)}</div>'
    yield f'<div class="text">{_markdown(text(embed.get("description")), names)}</div>'
    image = files.get(text(mapping(embed.get("image")).get("url")))
    if image is not None:
        yield _image(image, read)
    yield f'<div class="footer">{escape(text(mapping(embed.get("footer")).get("text")))}</div></div>'


def _file(file: Json, read: Read) -> str:
    if text(file.get("content_type")).startswith("image/"):
        return _image(file, read)
    return f'<div class="file">📄 {escape(unquote(text(file["filename"])))} · {number(file["size"]):,} bytes</div>'


def _image(file: Json, read: Read) -> str:
    description = escape(text(file.get("description")))
    return f'<img alt="{description}" src="data:image/png;base64,{b64encode(read(file)).decode()}">'


def _components(row: Json) -> str:
    parts: list[str] = []
    for item in rows(row.get("components")):
        if number(item.get("type")) == 2:
            colour = _BUTTON_STYLES.get(number(item.get("style")), _OTHER_BUTTON)
            faint = ";opacity:.5" if item.get("disabled") is True else ""
            parts.append(
                f'<span class="button" style="background:{colour}{faint}">{escape(text(item["label"]))}</span>'
            )
        else:
            parts.append(f'<div class="select">{escape(text(item.get("placeholder")))} ▾</div>')
    return f'<div class="row">{"".join(parts)}</div>'


_TAGS = {
    "block": ("<pre>", "</pre>"),
    "code": ("<code>", "</code>"),
    "link": ('<span class="link">', "</span>"),
    "time": ('<span class="time">', "</span>"),
    "mention": ('<span class="mention">', "</span>"),
}


def _markdown(source: str, names: Mapping[str, str]) -> str:
    """Return the Markdown of an embed as HTML."""
    return "".join(_html(span, names) for span in spans(source, names)).replace("</pre>\n", "</pre>")


def _html(span: Span, names: Mapping[str, str]) -> str:
    if span.kind == "bold":
        return f"<b>{_markdown(span.text, names)}</b>"
    start, end = _TAGS.get(span.kind, ("", ""))
    return f"{start}{escape(span.text)}{end}"
