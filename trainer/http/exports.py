"""Downloads of exported runs by signed links, which need no key."""

import asyncio

from aiohttp import web

from trainer.http.artifacts import requested_range
from trainer.services.exports import Exports


def export_route(exports: Exports) -> web.RouteDef:
    """Return the route of the links that `/mt export` shows."""

    async def download(request: web.Request) -> web.StreamResponse:
        """Send a file; ranges of it too. Raises RANGE_NOT_SATISFIABLE."""
        path = f"{request.match_info['folder']}/{request.match_info['name']}"
        expires, signature = (request.query.get(name, "") for name in ("expires", "signature"))
        file = await asyncio.to_thread(exports.find, path, expires, signature)
        if request.method == "GET":
            requested_range(request.headers, "", (await asyncio.to_thread(file.stat)).st_size)
        return web.FileResponse(file, headers={"Content-Disposition": f'attachment; filename="{file.name}"'})

    return web.get("/exports/{folder}/{name}", download)
