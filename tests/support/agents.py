"""Agents: the official client of MCP over HTTP and over standard input and output, and a process that is typed to."""

import json
import subprocess
import sys
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, Field
from pydantic_core import to_json

from tests.support import environment_in
from tests.support.http import Site
from tests.support.waiting import PATIENCE_SECONDS
from trainer.contracts.errors import ErrorBody

Record = TypeVar("Record", bound=BaseModel)
COMMAND = [sys.executable, "-m", "trainer", "mcp"]
_REFUSAL: type[Exception] = MCPError
FIRST = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


class _Text(BaseModel):
    text: str


class Refusal(BaseModel):
    """An error of the protocol."""

    code: int
    message: str
    data: ErrorBody


class _Result(BaseModel):
    content: tuple[_Text]
    structured: dict[str, object] | None = Field(default=None, alias="structuredContent")
    is_error: bool = Field(default=False, alias="isError")


class _Message(BaseModel):
    result: _Result


class _Tool(BaseModel):
    name: str


class _Tools(BaseModel):
    tools: tuple[_Tool, ...]


class _Content(BaseModel):
    text: str = ""
    blob: str = ""


class _Contents(BaseModel):
    contents: tuple[_Content, ...]


class _Address(BaseModel):
    uri: str = ""
    uri_template: str = Field(default="", alias="uriTemplate")


class _Addresses(BaseModel):
    resources: tuple[_Address, ...] = ()
    templates: tuple[_Address, ...] = Field(default=(), alias="resourceTemplates")


class Called(NamedTuple):
    """The result of a tool."""

    text: str
    fields: dict[str, object]
    is_error: bool

    @classmethod
    def of(cls, message: str) -> "Called":
        """The result in a message of the protocol."""
        found = _Message.model_validate_json(message).result
        return cls(found.content[0].text, found.structured or {}, found.is_error)

    @property
    def data(self) -> str:
        """The part of the text that stands between marks, as data of others."""
        _, _, rest = self.text.partition("<data>\n")
        assert rest.endswith("\n</data>"), self.text
        return rest.removesuffix("\n</data>")

    @property
    def error(self) -> ErrorBody:
        assert self.is_error
        body = ErrorBody.model_validate_json(json.dumps(self.fields))
        assert self.text == f"{body.code}: {body.message}"
        return body

    def record(self, model: type[Record]) -> Record:
        assert not self.is_error, self.text
        return model.model_validate_json(json.dumps(self.fields))


class Agent:
    """A client that has nothing but the tools and resources of a server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, tool: str, **arguments: object) -> Called:
        """Call a tool; the SDK checks the structured content against the schema of the tool."""
        result = await self._client.call_tool(tool, arguments)
        found = _Result.model_validate_json(result.model_dump_json(by_alias=True))
        return Called(found.content[0].text, found.structured or {}, found.is_error)

    async def tools(self) -> list[str]:
        listed = _Tools.model_validate_json((await self._client.list_tools()).model_dump_json(by_alias=True))
        return [tool.name for tool in listed.tools]

    async def read(self, uri: str) -> str:
        return (await self._content(uri)).text

    async def read_bytes(self, uri: str) -> bytes:
        return b64decode((await self._content(uri)).blob)

    async def part(self, uri: str) -> tuple[bytes, str]:
        """A part of a large resource, and the sentence about the next one."""
        part, about = await self._contents(uri)
        return b64decode(part.blob) or part.text.encode(), about.text

    async def _content(self, uri: str) -> _Content:
        [content] = await self._contents(uri)
        return content

    async def _contents(self, uri: str) -> tuple[_Content, ...]:
        read = (await self._client.read_resource(uri)).model_dump_json(by_alias=True)
        return _Contents.model_validate_json(read).contents

    async def addresses(self) -> list[str]:
        """The resources, and the templates of others."""
        found = [
            (await self._client.list_resources()).model_dump_json(by_alias=True),
            (await self._client.list_resource_templates()).model_dump_json(by_alias=True),
        ]
        listed = [_Addresses.model_validate_json(one) for one in found]
        return [one.uri or one.uri_template for each in listed for one in (*each.resources, *each.templates)]

    async def refused(self, uri: str) -> ErrorBody:
        """The body of the protocol's error for a resource."""
        try:
            await self.read(uri)
        except _REFUSAL as error:
            fields: dict[str, object] = vars(error)
            return Refusal.model_validate_json(to_json(fields["error"])).data
        raise AssertionError(f"{uri} was read")


@asynccontextmanager
async def http_agent(url: str, key: str, query: str = "") -> AsyncIterator[Agent]:
    """An agent with the API key of a server."""
    async with httpx2.AsyncClient(headers={"X-Api-Key": key}, timeout=PATIENCE_SECONDS) as http:
        async with Client(streamable_http_client(f"{url}/mcp{query}", http_client=http)) as client:
            yield Agent(client)


@asynccontextmanager
async def agent_of(site: Site, key: str, query: str = "") -> AsyncIterator[Agent]:
    """An agent with an API key of a site."""
    async with http_agent(f"http://127.0.0.1:{site.port}", key, query) as agent:
        yield agent


@asynccontextmanager
async def stdio_agent(folder: Path, *words: str, **environment: str) -> AsyncIterator[Agent]:
    """An agent whose client starts `mt mcp` for the installation of a folder."""
    [command, *arguments] = COMMAND
    server = StdioServerParameters(
        command=command, args=[*arguments, *words], env=environment_in(folder, **environment), cwd=folder
    )
    async with Client(stdio_client(server)) as client:
        yield Agent(client)


class TypedServer:
    """A process of `mt mcp` to which lines are typed."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self._number = 0

    def type(self, line: str) -> dict[str, object]:
        """Type a line, and return the next line of the process, which is a message."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        answer: dict[str, object] = json.loads(self.process.stdout.readline())
        assert answer["jsonrpc"] == "2.0"
        return answer

    def ask(self, method: str, params: Mapping[str, object]) -> dict[str, object]:
        """Send a request, and return its answer."""
        self._number += 1
        message = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        answer = self.type(json.dumps(message))
        assert answer["id"] == self._number
        return answer

    def call(self, tool: str, **arguments: object) -> Called:
        return Called.of(json.dumps(self.ask("tools/call", {"name": tool, "arguments": arguments})))


@contextmanager
def typed_server(folder: Path, **environment: str) -> Iterator[TypedServer]:
    """A process of `mt mcp` that has said hello, and that has ended after the block."""
    process = subprocess.Popen(
        COMMAND,
        cwd=folder,
        env=environment_in(folder, **environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            server = TypedServer(process)
            assert "result" in server.ask("initialize", FIRST)
            yield server
        finally:
            process.kill()
