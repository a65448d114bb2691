"""A headless Chromium with one page, driven over its DevTools protocol.

`make browser` installs Debian's Chromium and the accessibility checker axe-core; tests that need Chromium are skipped
elsewhere.
"""

import asyncio
import json
import re
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import log
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse
from pydantic import BaseModel, TypeAdapter

from scripts.message_picture import CHROMIUM
from tests.support import ROOT
from tests.support.waiting import PATIENCE_SECONDS, until
from trainer.services.embedded import die_with_parent

needs_chromium = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH: `make browser` installs it on Debian"),
]
_FAULTS = (ROOT / "tests" / "fixtures" / "page_faults.js").read_text(encoding="utf-8")
_AXE = ROOT / ".venv" / "node" / "node_modules" / "axe-core" / "axe.min.js"
_VIOLATIONS = """
axe.run().then(({ violations }) =>
  violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html} ${node.failureSummary}`)))
"""
_READ = """(({innerText}, hint) => [
  innerText.replace(hint, "").replaceAll("\\u00a0", " "),
  ...[...document.querySelectorAll("main *")].flatMap((one) => [one.ariaLabel, one.ariaValueText, one.title]),
].join("\\n"))(document.querySelector("main"), document.querySelector("#where-help")?.innerText ?? "")"""
"""What the page says, but the hint that conditions are in nats."""
_OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"),
)
_KEY_CODES = {"Tab": 9, "Enter": 13, " ": 32, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40}
_KEY_TEXTS = {"Enter": "\r", " ": " "}
_SHIFT = 8
_OF_NO_ELEMENT = re.compile(r"TypeError: .* properties of (null|undefined)")
"""What an expression raises for an element that the page does not have, or not yet."""


class _Request(BaseModel):
    url: str


class _Entry(BaseModel):
    level: str
    text: str
    url: str = ""


class _Event(BaseModel):
    """Parameters of the events that are read here."""

    request: _Request | None = None
    entry: _Entry | None = None
    type: str | None = None
    args: list[dict[str, object]] = []
    exceptionDetails: dict[str, object] | None = None


class _Message(BaseModel):
    id: int | None = None
    method: str | None = None
    params: dict[str, object] = {}
    result: dict[str, object] = {}
    error: dict[str, object] | None = None


class _Target(BaseModel):
    type: str
    webSocketDebuggerUrl: str


class Browser:
    """The page of a browser."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.errors: list[str] = []
        """Errors in the console: exceptions, violations of the security policy, failed requests."""
        self.hosts: set[str] = set()
        """Hosts that the page has sent requests to."""
        self._socket = socket
        self._answers: dict[int, asyncio.Future[dict[str, object]]] = {}
        self._reading = asyncio.create_task(self._read())

    async def call(self, method: str, **params: object) -> dict[str, object]:
        """Call a method of the protocol and return its result."""
        number = len(self._answers) + 1
        answer: asyncio.Future[dict[str, object]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        message: dict[str, object] = {"id": number, "method": method, "params": params}
        await self._socket.send_str(TypeAdapter(dict[str, object]).dump_json(message).decode())
        async with asyncio.timeout(PATIENCE_SECONDS):
            result: dict[str, object] = await answer
        return result

    async def evaluate(self, expression: str) -> object:
        """Return the value of an expression in the page; wait for the elements that it takes for given."""
        options = {"returnByValue": True, "awaitPromise": True, "userGesture": True}
        deadline = time.monotonic() + PATIENCE_SECONDS
        result = await self.call("Runtime.evaluate", expression=expression, **options)
        while _OF_NO_ELEMENT.search(str(result.get("exceptionDetails"))) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
            result = await self.call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in result, result
        value: object = TypeAdapter(dict[str, object]).validate_python(result["result"]).get("value")
        return value

    async def text(self, selector: str = "body") -> str:
        return str(await self.evaluate(f"document.querySelector({selector!r})?.innerText ?? ''"))

    async def see(self, expression: str) -> None:
        """Wait until an expression holds in the page."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not await self.evaluate(f"Boolean({expression})"):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"{expression} never held in:\n{await self.text()}\n{self.errors}")

    async def see_value(self, expression: str, value: object) -> None:
        """Wait until an expression has a value in the page."""
        wanted = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        await self.see(f"JSON.stringify({expression}) === {json.dumps(wanted)}")

    async def see_text(self, text: str, selector: str = "body") -> None:
        await self.see(f"document.querySelector({selector!r})?.innerText.includes({text!r})")

    async def see_start(self, text: str, selector: str) -> None:
        await self.see(f"document.querySelector({selector!r})?.innerText.startsWith({text!r})")

    async def open(self, address: str) -> None:
        """Load a page anew."""
        await self.call("Page.navigate", url="about:blank")
        await self.see("location.href === 'about:blank'")
        await self.call("Page.navigate", url=address)
        await self.see("location.href !== 'about:blank' && document.querySelector('h1, dialog[open]')")

    async def press(self, key: str, *, shift: bool = False) -> None:
        """Press a key and release it."""
        key_data: dict[str, object] = {"key": key, "code": key, "windowsVirtualKeyCode": _KEY_CODES[key]}
        key_data["modifiers"] = _SHIFT if shift else 0
        text = {"text": _KEY_TEXTS[key]} if key in _KEY_TEXTS else {}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **key_data, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **key_data)

    async def tab_to(self, selector: str) -> None:
        """Press Tab until an element has the focus; fails if no number of presses gets there."""
        for _ in range(100):
            if await self.evaluate(f"document.activeElement?.matches({selector!r})"):
                return
            await self.press("Tab")
        pytest.fail(f"Tab never reaches {selector}")

    async def type(self, text: str) -> None:
        await self.call("Input.insertText", text=text)

    async def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file where a form takes one."""
        await self.see(f"document.querySelector({selector!r})")
        found = await self.call("Runtime.evaluate", expression=f"document.querySelector({selector!r})")
        element = TypeAdapter(dict[str, object]).validate_python(found["result"])["objectId"]
        await self.call("DOM.setFileInputFiles", files=[str(path)], objectId=element)

    async def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        """Set the size of the window and the colour scheme, and wait until the page has them."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        # what follows the size, such as charts, is drawn after the next frame
        await self.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.wait([self._reading])

    async def _read(self) -> None:
        while not self._socket.closed:
            message = _Message.model_validate_json(await self._socket.receive_str())
            if message.id is None:
                self._note(message.method, _Event.model_validate(message.params))
            elif message.error is None:
                self._answers[message.id].set_result(message.result)
            else:
                self._answers[message.id].set_exception(AssertionError(str(message.error)))

    def _note(self, method: str | None, event: _Event) -> None:
        if method == "Network.requestWillBeSent" and event.request is not None:
            address = urlsplit(event.request.url)
            if address.scheme in ("http", "https", "ws", "wss"):
                self.hosts.add(address.netloc)
        elif method == "Log.entryAdded" and event.entry is not None and event.entry.level == "error":
            self.errors.append(f"{event.entry.text} {event.entry.url}".rstrip())
        elif method == "Runtime.consoleAPICalled" and event.type in ("error", "assert"):
            self.errors.append(str(event.args))
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(event.exceptionDetails))


async def faults(browser: Browser) -> list[str]:
    """Faults of the page: contrast below 4.5, no names or headings, more width than there is, and what axe finds."""
    found = await browser.evaluate(_FAULTS)
    texts = TypeAdapter(list[str])
    if not _AXE.exists():
        return texts.validate_python(found)
    if await browser.evaluate("typeof axe === 'undefined'"):
        await browser.evaluate(f"{_AXE.read_text(encoding='utf-8')}; true")
    return texts.validate_python(found) + texts.validate_python(await browser.evaluate(_VIOLATIONS))


async def check_looks(browser: Browser) -> None:
    """Fail for faults on a phone and a wide screen, in light and dark."""
    for width in (320, 1200):
        for dark in (False, True):
            await browser.screen(width, 800, dark=dark)
            assert await faults(browser) == []


async def give(browser: Browser, answer: str) -> None:
    """Press the button of an answer in the question of the page by the keyboard."""
    await browser.see("document.querySelector('dialog[open]:has(#question)')")
    assert await faults(browser) == []
    buttons = "[...document.querySelectorAll('dialog[open] button')]"
    await browser.evaluate(f"{buttons}.find((one) => one.innerText === '{answer}').focus()")
    await browser.press("Enter")
    await browser.see("!document.querySelector('#question')")


async def see_both_units(browser: Browser, *figures: tuple[str, *tuple[float, ...]]) -> None:
    """Choose nats, then bits, and see texts with numbers of nats in that unit, and nowhere the name of the other unit.

    The texts are templates: `{unit}` and `{Unit}` stand for the name of the unit, other fields for the numbers.
    """
    for unit, other, size in (("nats", "bits", 1.0), ("bits", "nats", log(2))):
        field = "document.querySelector('#unit')"
        await browser.evaluate(f"{field}.value = '{unit}'; {field}.dispatchEvent(new Event('change'))")
        for template, *nats in figures:
            numbers = [number / size for number in nats]
            text = re.sub(r"-(?=\d\.)", "−", template.format(*numbers, unit=unit, Unit=unit.capitalize()))
            await browser.see(f"{_READ}.includes({json.dumps(text)})")
        await browser.see(rf"!/\b{other}\b/i.test({_READ})")


@asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Browser]:
    """Start Chromium with a new profile in a folder, and end it after the block."""
    assert CHROMIUM is not None
    profile = folder / "profile"
    command = [*die_with_parent(), CHROMIUM, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"]
    chromium = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=DEVNULL)
    try:
        port_file = profile / "DevToolsActivePort"
        await until(lambda: port_file.exists() and port_file.read_text(encoding="ascii").count("\n") > 0)
        port = port_file.read_text(encoding="ascii").split("\n")[0]
        async with ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as response:
                targets = TypeAdapter(list[_Target]).validate_json(await response.read())
            address = next(target.webSocketDebuggerUrl for target in targets if target.type == "page")
            async with session.ws_connect(address, max_msg_size=0) as socket:
                browser = Browser(socket)
                try:
                    for domain in ("Page", "Runtime", "Network", "Log"):
                        await browser.call(f"{domain}.enable")
                    yield browser
                finally:
                    await browser.close()
    finally:
        chromium.terminate()
        await chromium.wait()
