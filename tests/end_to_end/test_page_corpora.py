"""The corpora in a browser: an upload by the keyboard, which continues when the server was killed, and deletions."""

import asyncio
from pathlib import Path

import pytest
from pydantic import BaseModel

from tests.support.api_process import api_process
from tests.support.browser import Browser, browsing, check_looks, faults, give, needs_chromium
from tests.support.faulty_proxy import free_port
from tests.support.lab import Lab
from tests.support.reverse_proxy import reverse_proxy
from tests.support.served_page import KEY, served
from trainer.data.text import corpus_sha256

pytestmark = needs_chromium


class _Node(BaseModel):
    nodeId: int


class _Found(BaseModel):
    root: _Node | None = None
    nodeId: int | None = None


@pytest.mark.slow
async def test_page__uploads_a_corpus_by_the_keyboard_through_a_kill_of_the_server(tmp_path: Path) -> None:
    file, lines = tmp_path / "қазақ тілі.txt", 1_500_000
    file.write_text("ана тілі 12\n" * lines, encoding="utf-8")
    server, environment = tmp_path / "server", {"HTTP__PORT": f"{free_port()}", "SECURITY__API_KEYS": ""}
    environment |= {"QUEUE__EMBEDDED_WORKERS": "0"}
    server.mkdir()
    async with browsing(tmp_path) as browser:
        with api_process(server, **environment) as api:
            await browser.open(f"{api.url}/#/corpora")
            await browser.see_text("udhr_ipa")
            await choose(browser, file)
            await browser.see_value("document.querySelector('#corpus-name').value", file.stem)
            await browser.tab_to("#corpus-language")
            await browser.type("kk")
            await browser.evaluate("document.querySelector('#corpus-spelling').value = 'false'")
            await browser.tab_to(".upload button")
            await browser.press("Enter")
            await browser.see("document.querySelector('progress')")
            api.process.kill()
            api.process.wait()
        with api_process(server, **environment) as api:
            await browser.see_text("Stored as corpus қазақ_тілі: ")
            await browser.see_text("usual spelling")
            await browser.see_text("The corpus қазақ_тілі is stored.", "#news")
            await check_looks(browser)
            await choose(browser, file)
            await browser.evaluate("document.querySelector('#corpus-name').value = 'demo'")
            await browser.tab_to(".upload button")
            await browser.press("Enter")
            await browser.see_text("There is another corpus 'demo': give another name.")
            assert await faults(browser) == []
            stored = server / "artifacts" / "corpora" / "қазақ_тілі.txt"
            assert await asyncio.to_thread(corpus_sha256, stored) == await asyncio.to_thread(corpus_sha256, file)
            for name, said in (("demo", "The corpus 'demo' was not added here"), ("қазақ_тілі", "is deleted.")):
                await browser.tab_to(f"button[aria-label='Delete {name}']")
                await browser.press("Enter")
                await give(browser, f"Delete the corpus {name}")
                await browser.see_text(said)
            await browser.see("!document.querySelector('main table').innerText.includes('қазақ_тілі')")
            assert not stored.exists()


@pytest.mark.slow
async def test_page__uploads_through_a_proxy_that_takes_small_bodies(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "through-a-proxy.txt"
    file.write_text("ana dili 12\n" * 100_000, encoding="utf-8")
    async with (
        browsing(tmp_path) as browser,
        served(lab, f"page:admin:{KEY}") as address,
        reverse_proxy(address, 300_000) as proxy,
    ):
        await browser.open(f"{proxy.url}/docs")
        await browser.evaluate(f"sessionStorage.setItem('api-key', {KEY!r})")
        await browser.open(f"{proxy.url}/#/corpora")
        await browser.see("document.querySelector('#corpus-file')")
        await choose(browser, file)
        await browser.tab_to(".upload button")
        await browser.press("Enter")
        await browser.see_text("Stored as corpus through-a-proxy: ")
        assert (proxy.refused_bytes, proxy.outside) == ([1_200_000, 1_200_000, 1_048_576, 524_288], [])
    stored = lab.folder / "artifacts" / "corpora" / file.name
    assert await asyncio.to_thread(corpus_sha256, stored) == await asyncio.to_thread(corpus_sha256, file)


async def choose(browser: Browser, file: Path) -> None:
    """Choose a file in the form, as the window of the system does."""
    root = _Found.model_validate(await browser.call("DOM.getDocument")).root
    assert root is not None
    found = await browser.call("DOM.querySelector", nodeId=root.nodeId, selector="#corpus-file")
    await browser.call("DOM.setFileInputFiles", files=[str(file)], nodeId=_Found.model_validate(found).nodeId)
