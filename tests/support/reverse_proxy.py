"""A reverse proxy such as nginx: it serves a server below a path, limits bodies, and answers errors with pages."""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from http import HTTPStatus

from aiohttp import ClientConnectionError, ClientSession, DummyCookieJar, TCPConnector, web
from aiohttp.test_utils import TestServer
from yarl import URL

PREFIX = "/lab/mt"
_OF_A_CONNECTION = ("Host", "Connection", "Transfer-Encoding", "Server", "Keep-Alive")


class ReverseProxy:
    """Passes on requests below its prefix; `url` is its address."""

    def __init__(self, session: ClientSession, server: str, most_bytes: int, drops: Collection[str]) -> None:
        self._session = session
        self._server = server
        self._most_bytes = most_bytes
        self._drops = {*_OF_A_CONNECTION, "Content-Length", *drops}
        self.url = ""
        self.status: int | None = None
        """The status of a page of its own, for all but the files of the page; 302 leads to a login elsewhere."""
        self.refused_header: str | None = None
        """A header that it refuses, as some stores of objects do."""
        self.refusal = 501, "NotImplemented", ""
        """The status, the code and the message of the answer to a refused header."""
        self.refused_bytes: list[int] = []
        """The sizes of the bodies that it did not take."""
        self.outside: list[str] = []
        """The addresses outside of its prefix that it was asked for."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if not request.path.startswith(f"{PREFIX}/"):
            self.outside.append(request.path)
            return _page(404)
        if self.status is not None and not request.path.startswith(f"{PREFIX}/page/"):
            return _page(self.status)
        if self.refused_header is not None and self.refused_header in request.headers:
            status, code, message = self.refusal
            await request.read()
            text = f"<Error><Code>{code}</Code><Message>{message}</Message><AWSAccessKeyId>KEY</AWSAccessKeyId></Error>"
            return web.Response(status=status, text=text, content_type="application/xml")
        if (request.content_length or 0) > self._most_bytes:
            self.refused_bytes.append(request.content_length or 0)
            await request.read()
            return _page(413)
        url = URL(self._server + request.raw_path.removeprefix(PREFIX), encoded=True)
        headers = {name: value for name, value in request.headers.items() if name.title() not in self._drops}
        headers["X-Forwarded-For"] = "198.51.100.7"
        try:
            async with self._session.request(
                request.method, url, headers=headers, data=await request.read() or None, allow_redirects=False
            ) as got:
                kept = {name: value for name, value in got.headers.items() if name not in _OF_A_CONNECTION}
                answer = web.StreamResponse(status=got.status, headers=kept)
                await answer.prepare(request)
                async for chunk in got.content.iter_any():
                    await answer.write(chunk)
                return answer
        except ClientConnectionError:
            return _page(502)


def _page(status: int) -> web.Response:
    title = f"<title>{status} {HTTPStatus(status).phrase}</title>"
    headers = {"Location": "http://127.0.0.1:1/login"} if status // 100 == 3 else {}
    return web.Response(status=status, text=title, content_type="text/html", headers=headers)


@asynccontextmanager
async def reverse_proxy(
    server: str, most_bytes: int = 1 << 20, drops: Collection[str] = ()
) -> AsyncIterator[ReverseProxy]:
    """A proxy before a server, which takes bodies of at most `most_bytes`, and passes some headers not on."""
    connector = TCPConnector(limit=0)
    async with ClientSession(connector=connector, cookie_jar=DummyCookieJar(), auto_decompress=False) as session:
        proxy = ReverseProxy(session, server, most_bytes, drops)
        app = web.Application(client_max_size=1 << 30)
        app.add_routes([web.route("*", "/{path:.*}", proxy.answer)])
        async with TestServer(app) as listening:
            proxy.url = f"http://127.0.0.1:{listening.port}{PREFIX}"
            yield proxy
