"""`mt mcp`: one agent on standard input and output, on this machine's installation or on that of a server."""

import json
import signal

import pytest

from tests.support import ended, tiny_request, wait_for_status
from tests.support.agents import Refusal, stdio_agent, typed_server
from tests.support.api_server import KEY, USER_KEY, LabServer, server_fixture
from tests.support.lab import Lab
from tests.support.run_shell import Shell
from tests.support.waiting import PATIENCE_SECONDS
from trainer.artifacts.runs import RunDirectory
from trainer.contracts.errors import ErrorCode
from trainer.contracts.runs import Accepted
from trainer.mcp.tools import tools

__all__ = ["server_fixture"]
TINY: dict[str, object] = tiny_request(max_steps=3).model_dump(mode="json", exclude_unset=True)
HERE = {"QUEUE__EMBEDDED_WORKERS": "0", "MT_URL": ""}


def config_of(run: RunDirectory) -> str:
    return (run.path / "config.json").read_text(encoding="utf-8")


async def test_agent__is_the_operator_of_this_machine(lab: Lab) -> None:
    async with lab.queue() as queue:
        run = await lab.finished_run(queue)
        async with stdio_agent(lab.folder, **HERE) as agent:
            assert await agent.tools() == [*tools()]
            started = await agent.call("train", **TINY, seed=21, wait=30)
            run_id = str(started.fields["run_id"])
            await wait_for_status(queue, run_id, ended)
            card = await agent.read(f"run://{run_id}/card")
            assert card.startswith("<data>\n") and f"({run_id}): completed\n" in card
            assert (
                await agent.read(f"artifact://models/{run.run_id}/config.json")
                == (run.path / "config.json").read_text()
            )
            assert (await agent.call("delete_run", run_id=run_id)).text == "The run is deleted."
            assert (await agent.call("get_run", run_id=run_id)).error.code is ErrorCode.RUN_NOT_FOUND
        async with stdio_agent(lab.folder, "--tags", "corpora", **HERE) as few:
            assert {tools()[name].call.operation.tag for name in await few.tools()} == {"corpora"}


async def test_call__that_is_repeated_after_a_kill_starts_no_second_run(lab: Lab) -> None:
    async with lab.queue() as queue:
        before = {*queue.runs.ids()}
        found = list[str]()
        for _attempt in range(2):
            with typed_server(lab.folder, **HERE) as server:
                found.append(server.call("train", **TINY, seed=22, idempotency_key="once").record(Accepted).run_id)
                server.process.send_signal(signal.SIGKILL)
        other = None
        with typed_server(lab.folder, **HERE) as server:
            other = server.call("train", **TINY, seed=23, idempotency_key="once")
        assert found[0] == found[1] and {*queue.runs.ids()} - before == {found[0]}
        assert other.error.code is ErrorCode.CONFLICT
        assert (await wait_for_status(queue, found[0], ended)).status == "completed"


def test_output__has_only_messages_and_each_mistake_gets_one(lab: Lab) -> None:
    with typed_server(lab.folder, **HERE) as server:
        for line, code in (("{broken", -32700), ('{"a": 1}', -32600), ('"\\ud800"', -32700), ("[]", -32600)):
            answer = server.type(line)
            refusal = Refusal.model_validate_json(json.dumps(answer["error"]))
            assert (answer["id"], refusal.code, refusal.message) == (None, code, refusal.data.message)
        for params in ({"name": "nothing", "arguments": {}}, {"name": "get_run", "arguments": [1]}, {}):
            assert '"code": -32602' in json.dumps(server.ask("tools/call", params)["error"])
        assert '"code": -32601' in json.dumps(server.ask("no/method", {})["error"])
        assert server.call("generate", run_id="last", prompt_text="x" * 10_000_000).error.code == "PAYLOAD_TOO_LARGE"
        assert server.call("generate", run_id="last", prompt_text="x" * (17 << 20)).error.code == "PAYLOAD_TOO_LARGE"
        assert server.call("get_run", run_id="../../etc/passwd").error.code is ErrorCode.RUN_NOT_FOUND
        assert not server.call("list_corpora").is_error
        server.process.terminate()
        assert server.process.wait(PATIENCE_SECONDS) == 130
        assert server.process.stdout is not None and server.process.stdout.read() == ""


async def test_agent__on_a_server_has_the_rights_of_its_key(server: LabServer) -> None:
    run_id = server.run.run_id
    async with stdio_agent(server.lab.folder, MT_URL=server.url, MT_KEY=USER_KEY) as agent:
        read = await agent.call("get_run", run_id=run_id, wait=1)
        assert (read.fields["run_id"], read.data.splitlines()[0]) == (run_id, f"{run_id}: completed")
        assert (await agent.call("delete_run", run_id=run_id)).error.code is ErrorCode.FORBIDDEN
        scored = await agent.call("score", run_id=run_id, text="ab", wait=30, idempotency_key="one")
        again = await agent.call("score", run_id=run_id, text="ab", wait=30, idempotency_key="one")
        assert scored.fields["status"] == "completed" and again.fields["request_id"] == scored.fields["request_id"]
        checked = await agent.call("verify_run", run_id=run_id, wait=30)
        assert checked.fields["status"] == "completed"
        assert (await agent.refused(f"artifact://models/{run_id}/loss_curve.jsonl")).code is ErrorCode.NOT_FOUND
    async with stdio_agent(server.lab.folder, MT_URL=server.url, MT_KEY="") as stranger:
        assert (await stranger.call("list_runs")).error.code is ErrorCode.UNAUTHORIZED
    async with stdio_agent(server.lab.folder, MT_URL=server.url, MT_KEY=KEY) as admin:
        assert (
            await admin.read(f"artifact://models/{run_id}/config.json") == (server.run.path / "config.json").read_text()
        )


def test_command__says_what_to_install_without_the_extra(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.contracts.installation.find_spec", {"mcp": None}.get)
    code, _, said = shell.run("mcp")
    assert (code, "This needs the extra `agents`: run" in said) == (2, True)
