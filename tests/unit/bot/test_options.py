"""The options of commands: names and bounds as the chat shows them, checked again where they arrive."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from bot.commands.inference import GenerateOptions, ScoreOptions
from bot.commands.training import clean_label, download
from tests.properties import for_all
from tests.unit.bot.test_embeds import texts
from trainer.contracts.errors import AppError, ErrorCode
from trainer.contracts.inference import GenerateRequest
from trainer.contracts.validation import parse

DEFAULTS: dict[str, object] = {
    "prompt": "",
    "max_new": 64,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "samples": 1,
    "stop": None,
    "seed": None,
}


def test_generate__defaults_are_those_of_the_contract() -> None:
    assert parse(GenerateOptions, DEFAULTS).request() == GenerateRequest(prompt_text="")


def test_generate__every_option_reaches_the_request() -> None:
    values: dict[str, object] = {
        "prompt": "men ",
        "max_new": 7,
        "temperature": 0.5,
        "top_k": 3,
        "top_p": 0.9,
        "samples": 2,
        "stop": ".",
        "seed": 5,
    }

    assert parse(GenerateOptions, values).request() == GenerateRequest(
        prompt_text="men ",
        max_new_tokens=7,
        temperature=0.5,
        top_k=3,
        top_p=0.9,
        num_return_sequences=2,
        stop_sequences=(".",),
        seed=5,
    )


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("prompt", "x" * 1001),
        ("max_new", 0),
        ("max_new", 513),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_k", 1001),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("samples", 0),
        ("samples", 5),
        ("stop", ""),
        ("seed", -1),
        ("seed", 2**32),
    ],
)
def test_generate__a_value_out_of_bounds_is_named_by_its_option(option: str, value: object) -> None:
    with pytest.raises(AppError, match=f"`{option}`") as refused:
        parse(GenerateOptions, {**DEFAULTS, option: value})

    assert refused.value.code is ErrorCode.INVALID_INPUT


@pytest.mark.parametrize("text", ["", "x" * 2001])
def test_score__text_of_a_wrong_length_is_refused(text: str) -> None:
    with pytest.raises(AppError, match="`text`"):
        parse(ScoreOptions, {"text": text})


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("kk-ipa v1.2", "kk-ipa v1.2"),
        ("My_cats  (1)", "My cats 1"),
        ("../../etc/passwd", ".. .. etc passwd"),
        ("қазақ тілі", "қазақ тілі"),
        ("*@`<>|", None),
        ("a" * 100, "a" * 64),
    ],
)
def test_label__is_the_cleaned_name(name: str, label: str | None) -> None:
    assert clean_label(name) == label


@for_all(texts)
def test_label__of_any_name_is_short_and_plain(name: str) -> None:
    label = clean_label(name)

    assert label is None or (0 < len(label) <= 64 and all(sign.isalnum() or sign in " -." for sign in label))


@asynccontextmanager
async def file_server(size: int) -> AsyncIterator[str]:
    """Serves `size` bytes at /file, in pieces and without declaring how many there are; nothing else is there."""

    async def send(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(size // 1000):
            await response.write(b"x" * 1000)
        return response

    app = web.Application()
    app.router.add_get("/file", send)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    addresses: list[tuple[str, int]] = runner.addresses
    try:
        yield f"http://127.0.0.1:{addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_download__ends_at_the_limit_whatever_was_declared() -> None:
    async with file_server(3000) as address:
        assert await download(f"{address}/file", 3000) == b"x" * 3000
        with pytest.raises(AppError, match="at most 2,999 bytes") as refused:
            await download(f"{address}/file", 2999)

    assert refused.value.code is ErrorCode.PAYLOAD_TOO_LARGE


async def test_download__of_a_file_that_is_gone() -> None:
    async with file_server(0) as address:
        with pytest.raises(AppError, match="attach it once more") as refused:
            await download(f"{address}/gone", 1000)

    assert refused.value.code is ErrorCode.SERVICE_UNAVAILABLE
