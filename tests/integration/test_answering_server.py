"""A running server is found without starting one."""

import os
import shutil
from pathlib import Path

import pytest

from tests.support import settings_in
from trainer.config.settings import RedisSettings, Settings
from trainer.contracts.errors import AppError
from trainer.services.embedded import Services, answering_server


def settings_with(folder: Path, url: str) -> Settings:
    given: dict[str, object] = {"redis": RedisSettings.model_validate(_url(url))}
    return settings_in(folder).model_copy(update=given)


def _url(url: str) -> dict[str, str]:
    return {"url": url}


async def test_embedded_server__is_found_while_it_runs(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, embedded_workers=0)
    assert await answering_server(settings) is None
    assert os.listdir(tmp_path) == []
    services = Services(settings)
    url = await services.start()
    assert await answering_server(settings) == url
    await services.stop()
    assert await answering_server(settings) is None


async def test_socket_under_a_short_name__is_refused_in_a_folder_of_others(tmp_path: Path) -> None:
    settings = settings_in(tmp_path / ("long-name-" * 12), embedded_workers=0)
    services = Services(settings)
    url = await services.start()
    assert await answering_server(settings) == url
    await services.stop()
    place = Path(url.removeprefix("unix://")).parent
    place.chmod(0o777)
    with pytest.raises(AppError, match="belongs to another user"):
        await answering_server(settings)
    shutil.rmtree(place)


async def test_given_redis__is_found_where_it_takes_connections(tmp_path: Path) -> None:
    services = Services(settings_in(tmp_path, embedded_workers=0))
    url = await services.start()
    given = settings_with(tmp_path / "other", url)
    assert await answering_server(given) == url
    await services.stop()
    assert await answering_server(given) is None
    assert await answering_server(settings_with(tmp_path, "redis://127.0.0.1:1/0")) is None
