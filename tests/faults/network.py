"""Machines of a campaign: network namespaces, or where those cannot be had, folders behind proxies of their own."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from tests.faults.driver import Supervised
from tests.support import processes
from tests.support.faulty_proxy import FaultyProxy, free_port

Cut = Literal["network cut", "Valkey cut", "store cut"]


class Address(NamedTuple):
    host: str
    port: int


class Servers(NamedTuple):
    """The addresses of the servers, on their own side or on that of a machine."""

    valkey: Address
    store: Address


class Wire(Protocol):
    """The network between the servers and one machine."""

    servers: Servers
    command: tuple[str, ...]
    """The prefix of a command that runs on the machine, before the name of its host."""

    async def start(self) -> None: ...

    async def cut_for(self, cut: Cut, seconds: float) -> None:
        """Lose all packets to one server, or to both, without a word."""

    async def stop(self) -> None: ...


class Network:
    """A bridge on this machine with one address for each server, and a namespace for each machine; or proxies."""

    def __init__(self) -> None:
        pid = os.getpid()
        self.name = f"mts{pid}"
        self.subnet = f"10.{64 + pid % 64}.{pid // 64 % 256}"
        self.servers = Servers(Address(f"{self.subnet}.1", 6379), Address(f"{self.subnet}.2", 9000))
        self.has_namespaces = True
        try:
            self._open()
        except (OSError, subprocess.CalledProcessError):  # this user may not create one
            self.close()
            self.has_namespaces = False
            self.servers = Servers(*(Address("127.0.0.1", free_port()) for _ in range(2)))

    @property
    def words(self) -> str:
        return "network namespaces" if self.has_namespaces else "folders and proxies, without network namespaces"

    def _open(self) -> None:
        _ip("link", "add", self.name, "type", "bridge")
        for server in self.servers:
            _ip("addr", "add", f"{server.host}/24", "dev", self.name)
        _ip("link", "set", self.name, "up")
        _ip("netns", "add", f"{self.name}-0")
        _ip("netns", "del", f"{self.name}-0")

    def wire(self, number: int) -> Wire:
        return _Veth(self, number) if self.has_namespaces else _Proxies(self)

    def left(self) -> list[str]:
        """Return what the network has left behind."""
        if not self.has_namespaces:
            return []
        lines = [*_ip("netns", "list").splitlines(), *_ip("-brief", "link").splitlines()]
        return [f"{line} is left behind" for line in lines if line.startswith(self.name)]

    def close(self) -> None:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):  # it may not have been opened
            _ip("link", "del", self.name)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class _Veth:
    """A pair of virtual cards, one of them in the namespace of the machine."""

    def __init__(self, network: Network, number: int) -> None:
        self.servers = network.servers
        self._bridge, self._name = network.name, f"{network.name}-{number}"
        self._address = f"{network.subnet}.{10 + number}/24"
        named = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"')
        self.command: tuple[str, ...] = ("ip", "netns", "exec", self._name, *named)

    async def start(self) -> None:
        _ip("netns", "add", self._name)
        _ip("link", "add", self._name, "type", "veth", "peer", "name", "eth0", "netns", self._name)
        _ip("link", "set", self._name, "master", self._bridge, "up")
        _ip("-n", self._name, "addr", "add", self._address, "dev", "eth0")
        for card in ("lo", "eth0"):
            _ip("-n", self._name, "link", "set", card, "up")

    async def cut_for(self, cut: Cut, seconds: float) -> None:
        if cut == "network cut":
            _ip("link", "set", self._name, "down")
            await asyncio.sleep(seconds)
            _ip("link", "set", self._name, "up")
            return
        server = self.servers.valkey if cut == "Valkey cut" else self.servers.store
        neighbour = (server.host, "dev", "eth0")
        nobody = ("lladdr", "02:00:00:00:00:01", "nud", "permanent")
        _ip("-n", self._name, "neigh", "replace", *neighbour, *nobody)
        await asyncio.sleep(seconds)
        _ip("-n", self._name, "neigh", "del", *neighbour)

    async def stop(self) -> None:
        for words in (("link", "del", self._name), ("netns", "del", self._name)):
            with contextlib.suppress(subprocess.CalledProcessError):  # it may not have been started
                _ip(*words)


class _Proxies:
    """A proxy for each server, which one machine uses."""

    command: tuple[str, ...] = ()

    def __init__(self, network: Network) -> None:
        self._proxies = [FaultyProxy(server.port) for server in network.servers]
        self.servers = Servers(*(Address("127.0.0.1", proxy.port) for proxy in self._proxies))

    async def start(self) -> None:
        await asyncio.gather(*(proxy.start() for proxy in self._proxies))

    async def cut_for(self, cut: Cut, seconds: float) -> None:
        valkey, store = self._proxies
        cut_off = {"network cut": [valkey, store], "Valkey cut": [valkey], "store cut": [store]}
        await asyncio.gather(*(proxy.break_for("silent", seconds) for proxy in cut_off[cut]))

    async def stop(self) -> None:
        await asyncio.gather(*(proxy.stop() for proxy in self._proxies))


class Machine:
    """A machine with a worker, which a service manager starts again whenever it ends."""

    def __init__(self, folder: Path, number: int, wire: Wire, environment: Mapping[str, str]) -> None:
        self.wire = wire
        self.busy = asyncio.Lock()
        """Held during a fault: one at a time happens to a machine."""
        self._parent, self._number, self._environment = folder, number, environment
        self._replaced = 0
        self._make_worker()

    @property
    def folder(self) -> Path:
        """Its disk; a machine that replaces another one has neither the disk nor the name of the host from it."""
        return self._parent / f"machine-{self._number}-{self._replaced}"

    def _make_worker(self) -> None:
        name, environment = self.folder.name, dict(self._environment)
        environment |= {"APP__DATA_ROOT": f"{self.folder}/data", "APP__ARTIFACTS_ROOT": f"{self.folder}/artifacts"}
        prefix = (*self.wire.command, name) if self.wire.command else ()
        command = [*prefix, sys.executable, "-m", "trainer", "worker"]
        self.worker = Supervised(name, command, environment, self._parent)

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.worker.start()

    def is_training(self) -> bool:
        return bool(processes(self.folder / "data", "train-child"))

    async def kill(self, dead_seconds: float, *, is_replaced: bool = False) -> None:
        """Kill every process at once; then start the machine again, or another one with an empty folder."""
        await self._end()
        await asyncio.sleep(dead_seconds)
        if is_replaced:
            shutil.rmtree(self.folder)
            self._replaced += 1
            self._make_worker()
        self.start()

    async def freeze(self, seconds: float) -> None:
        """Stop every process, and let them continue later."""
        self._signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._signal(signal.SIGCONT)

    async def end(self) -> None:
        """Leave nothing behind, however things stand."""
        await self._end()
        await self.wire.stop()

    async def _end(self) -> None:
        await self.worker.abandon()
        while self._signal(signal.SIGKILL):
            await asyncio.sleep(0.01)

    def _signal(self, number: signal.Signals) -> bool:
        """Signal all processes of the machine; return False if there are none."""
        found = processes(self.folder / "data")
        for process in found:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(process.pid, number)
        return bool(found)
