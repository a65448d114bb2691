"""The table of HTTP operations, as handlers declare their inputs."""

import pytest
from aiohttp import web

from trainer.contracts.parameters import NoBody, NoQuery
from trainer.http.operations import ApiRequest, own


async def untyped(call: "ApiRequest[NoQuery, NoQuery, NoBody]") -> web.StreamResponse:
    """Take an annotation that is a text."""
    raise NotImplementedError


def test_handler__with_unreadable_inputs_is_refused_by_its_name() -> None:
    with pytest.raises(TypeError, match="`call` of the handler untyped must be an ApiRequest"):
        own("get_health", untyped)
