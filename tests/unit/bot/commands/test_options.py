"""The options of commands: names and bounds as the chat shows them, checked again where they arrive."""

import unicodedata
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import discord
import pytest
from aiohttp import web

from bot.commands.generate import GenerateOptions
from bot.messages.option_names import in_option_names
from bot.rest.attachments import attachment_name, download, read_attachment
from tests.support.cards import texts
from tests.support.properties import for_all
from tests.support.refusals import refused
from trainer.config.settings import load_settings
from trainer.config.train_request import request_fields, train_request, with_family
from trainer.config.validation import parse
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.generations import GenerateRequest
from trainer.data.text import clean_label

DEFAULTS: dict[str, object] = {
    **{"prompt": "", "max_new_tokens": 64, "temperature": 1.0, "top_k": 0, "top_p": 1.0},
    **{"samples": 1, "stop": None, "seed": None},
}


def test_generate__every_option_and_default_reaches_the_request() -> None:
    assert parse(GenerateOptions, DEFAULTS).request() == GenerateRequest(prompt_text="")
    same: dict[str, object] = {"max_new_tokens": 7, "temperature": 0.5, "top_k": 3, "top_p": 0.9, "seed": 5}
    given: dict[str, object] = {"prompt": "men ", "samples": 2, "stop": "."}
    wanted: dict[str, object] = {"prompt_text": "men ", "num_return_sequences": 2, "stop_sequences": (".",)}
    assert parse(GenerateOptions, same | given).request() == parse(GenerateRequest, same | wanted)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("prompt", "x" * 4001),
        *(("max_new_tokens", value) for value in (0, 513)),
        *(("temperature", value) for value in (-0.1, 2.1, float("nan"), float("inf"))),
        *(("top_k", value) for value in (-1, 1001)),
        *(("top_p", value) for value in (0.0, 1.1)),
        *(("samples", value) for value in (0, 5)),
        ("stop", ""),
        *(("seed", value) for value in (-1, 2**32)),
    ],
)
def test_generate__a_value_out_of_bounds_is_named_by_its_option(option: str, value: object) -> None:
    with refused(ErrorCode.INVALID_INPUT, f"`{option}`"):
        parse(GenerateOptions, {**DEFAULTS, option: value})


def test_train__an_error_names_the_option_in_place_of_the_field() -> None:
    with pytest.raises(AppError) as refused:
        train_request(with_family(request_fields({"corpus": "x", "epochs": 0, "name": "a\nb"})))
    told = in_option_names(refused.value)
    assert told.code is ErrorCode.INVALID_INPUT
    assert "`epochs`" in told.message and "`name`" in told.message
    assert "num_epochs" not in told.message and "label" not in told.message
    assert [problem.message.split("`")[1] for problem in told.details] == ["epochs", "name"]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("kk-ipa v1.2", "kk-ipa v1.2"),
        ("My_cats  (1)", "My cats 1"),
        ("../../etc/passwd", ".. .. etc passwd"),
        ("қазақ тілі", "қазақ тілі"),
        ("हिन्दी_पाठ", "हिन्दी पाठ"),
        ("и\u0306од", "йод"),
        ("*@`<>|", None),
        ("a" * 100, "a" * 64),
    ],
)
def test_label__is_the_cleaned_name(name: str, label: str | None) -> None:
    assert clean_label(name) == label


@for_all(texts)
def test_label__of_any_name_is_short_and_plain(name: str) -> None:
    label = clean_label(name)
    assert label is None or (0 < len(label) <= 64 and all(map(may_stand_in_label, label)))


def may_stand_in_label(sign: str) -> bool:
    return sign.isalnum() or sign in " -." or unicodedata.category(sign).startswith("M")


@pytest.mark.parametrize(
    ("filename", "title", "option", "name"),
    [
        ("cats.txt", None, "file", "cats.txt"),
        ("txt", "мәтін", "file", "мәтін.txt"),
        (".txt", "мәтін", "file", "мәтін.txt"),
        ("2.TXT", "мәтін 2", "file", "мәтін 2.txt"),
        ("v1.2.txt", "мәтін v1.2", "file", "мәтін v1.2.txt"),
        ("unknown.txt", "мәтін.txt", "file", "мәтін.txt"),
        ("unknown", "мәтін", "file", "мәтін.txt"),
        ("2", "мәтін 2", "file", "мәтін 2.txt"),
        ("txt", "ә" * 1024, "file", "ә" * 200 + ".txt"),
        ("yml", "баптау", "config", "баптау.yml"),
        ("unknown", "баптау", "config", "баптау.yaml"),
        ("pdf.pdf", "мәтін pdf", "file", None),
        ("notes", None, "file", None),
        ("kk.txt", None, "config", None),
    ],
)
def test_attachment__has_the_name_that_its_owner_gave_it(
    filename: str, title: str | None, option: str, name: str | None
) -> None:
    if name is not None:
        assert attachment_name(filename, title, option) == name
        return
    with refused(ErrorCode.UNSUPPORTED_MEDIA_TYPE, "whose name ends in"):
        attachment_name(filename, title, option)


@asynccontextmanager
async def file_server(size: int, answers: Sequence[int] = ()) -> AsyncIterator[tuple[str, list[int]]]:
    """Serve `size` bytes at /file without declaring how many; requests first get the statuses in `answers`, 0 breaks.

    An attachment has the path by which it is requested. Yields the address and the statuses of the requests for
    /file.
    """
    answered: list[int] = []

    async def send(request: web.Request) -> web.StreamResponse:
        status = answers[len(answered)] if len(answered) < len(answers) else 200
        answered.append(status)
        if status not in (0, 200):
            return web.Response(status=status)
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(size // 1000):
            await response.write(b"x" * 1000)
        if status == 0 and request.transport is not None:
            request.transport.abort()
        return response

    async def asked(request: web.Request) -> web.Response:
        return web.Response(body=request.raw_path.encode())

    app = web.Application()
    app.router.add_get("/file", send)
    app.router.add_get("/attachments/1/2/{name}", asked)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    addresses: list[tuple[str, int]] = runner.addresses
    try:
        yield f"http://127.0.0.1:{addresses[0][1]}", answered
    finally:
        await runner.cleanup()


@pytest.mark.process
async def test_download__ends_at_the_limit_whatever_was_declared() -> None:
    async with file_server(3000) as (address, answered):
        assert await download(f"{address}/file", 3000) == b"x" * 3000
        with pytest.raises(AppError, match="at most 2,999 bytes") as refused:
            await download(f"{address}/file", 2999)
    assert refused.value.code is ErrorCode.PAYLOAD_TOO_LARGE
    assert answered == [200, 200]


@pytest.mark.process
async def test_attachment__is_fetched_from_the_set_address_with_its_signature(tmp_path: Path) -> None:
    path = "/attachments/1/2/m%C9%99tin.txt?ex=6a&is=6b&hm=ff"
    file = discord.Attachment(
        data={"id": 2, "size": 5, "filename": "text.txt", "url": f"https://cdn.discordapp.com{path}", "proxy_url": ""},
        state=discord.Client(intents=discord.Intents.none())._connection,
    )
    async with file_server(0) as (address, _):
        settings = load_settings({"DISCORD__CDN_BASE_URL": address}, tmp_path)
        assert await read_attachment(file, settings) == path.encode()


@pytest.mark.process
@pytest.mark.parametrize("answers", [[503], [429, 0, 500]])
async def test_download__that_failed_is_tried_again(answers: list[int]) -> None:
    async with file_server(3000, answers) as (address, answered):
        assert await download(f"{address}/file", 3000) == b"x" * 3000
    assert answered == [*answers, 200]


@pytest.mark.process
@pytest.mark.parametrize("answers", [[403], [502, 404], [500, 0, 503, 500]])
async def test_download__that_keeps_failing_is_one_sentence(answers: list[int]) -> None:
    async with file_server(1000, answers) as (address, answered):
        with pytest.raises(AppError) as refused:
            await download(f"{address}/file", 1000)
    assert refused.value.code is ErrorCode.SERVICE_UNAVAILABLE
    assert refused.value.message == "The attachment `file` could not be downloaded. Attach it again."
    assert answered == answers
