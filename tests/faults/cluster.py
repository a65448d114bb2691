"""A Slurm cluster of one controller and two nodes on this machine, in a temporary folder.

Each node has its own host name and process numbers, so that its workers count as those of another machine, and so that
the end of its first process ends all of its processes at once, as a power cut does.
"""

import asyncio
import contextlib
import os
import re
import secrets
import socket
import subprocess
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.faulty_proxy import free_port
from tests.support.waiting import PATIENCE_SECONDS, until

NODES = ("node1", "node2")
_CONFIGURATION = Path(__file__).with_name("slurm.conf.txt").read_text(encoding="ascii")
"""Slurm starts a requeued job after the lifetime of its credentials (`cred_expire`), by default 120 s."""
PREEMPTION = re.compile(r"preemption grace time for JobId=(\w+)")
NODE_LOSS = re.compile(r"requeue job JobId=(\w+)\S* due to failure of node")
_NODE = 'hostname "$1"; slurmd -D -N "$1" & wait'


class Job(NamedTuple):
    """A job as `squeue` lists it."""

    job_id: str
    state: str
    node: str


class Cluster:
    """The daemons of the cluster, and the commands of its users."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self.daemons: dict[str, Process] = {}

    async def start(self) -> None:
        for name in ("munge", "state", *NODES):
            (self.folder / name).mkdir(parents=True, mode=0o700)
        key = self.folder / "munge" / "key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        nodes = [
            f"NodeName={node} NodeHostname={node} NodeAddr=127.0.0.1 Port={free_port()} CPUs=4 RealMemory=8192"
            for node in NODES
        ]
        written = _CONFIGURATION.format(
            host=socket.gethostname(), port=free_port(), folder=self.folder, nodes="\n".join(nodes)
        )
        (self.folder / "slurm.conf").write_text(written, encoding="ascii")
        files = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={self.folder / 'munge' / name}" for option, name in files.items()]
        await self._start("munged", "munged", "--foreground", "--force", f"--key-file={key}", *options)
        await until((self.folder / "munge" / "socket").exists)
        await self._start("slurmctld", "slurmctld", "-D")
        for node in NODES:
            await self.start_node(node)
        await self._wait_for_idle_nodes()

    async def start_node(self, node: str) -> None:
        namespaces = ("--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
        await self._start(node, "unshare", *namespaces, "sh", "-c", _NODE, "sh", node)

    async def end(self, daemon: str) -> None:
        """Kill a daemon; with a node all processes of the node end."""
        process = self.daemons.pop(daemon)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def command(self, *words: str, **environment: str) -> str:
        """Return what a command of Slurm prints; raises CalledProcessError."""
        process = await asyncio.create_subprocess_exec(
            *words, cwd=self.folder, env=self.environment | environment, stdout=PIPE, stderr=PIPE
        )
        printed, trouble = await process.communicate()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, words, printed, trouble)
        return printed.decode().strip()

    async def jobs(self) -> list[Job]:
        """Return the jobs that have not ended, each task of an array on its own."""
        lines = (await self.command("squeue", "--noheader", "--array", "--format=%i %T %N")).splitlines()
        return [Job(job_id, state, node) for job_id, state, node in (f"{line} ".split(" ")[:3] for line in lines)]

    def jobs_in_log(self, line: re.Pattern[str]) -> list[str]:
        """Return the jobs in the lines of a kind in the log of the controller."""
        text = (self.folder / "slurmctld.log").read_text(encoding="utf-8")
        return [str(match[1]) for match in line.finditer(text)]

    async def _wait_for_idle_nodes(self) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                with contextlib.suppress(subprocess.CalledProcessError):  # the controller does not answer yet
                    if set((await self.command("sinfo", "--noheader", "--Node", "--format=%T")).split()) == {"idle"}:
                        return
                await asyncio.sleep(0.2)

    async def _start(self, name: str, *words: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as file:
            self.daemons[name] = await asyncio.create_subprocess_exec(
                *words,
                cwd=self.folder,
                env=self.environment,
                stdin=DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[Cluster]:
    """A cluster that runs; whatever happens, it runs no more afterwards."""
    cluster = Cluster(folder)
    try:
        await cluster.start()
        yield cluster
    finally:
        for daemon in reversed([*cluster.daemons]):
            await cluster.end(daemon)
