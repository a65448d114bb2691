"""Machines of a campaign: network namespaces, or where those cannot be had, folders behind proxies of their own."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from tests.chaos.supervised import Supervised
from tests.support import ROOT, processes
from tests.support.faulty_proxy import FaultyProxy, free_port

Cut = Literal["network cut", "Valkey cut", "store cut"]


class Address(NamedTuple):
    host: str
    port: int


class Wire(Protocol):
    """The network between the servers and one machine."""

    valkey: Address
    store: Address

    def command(self, hostname: str) -> Sequence[str]:
        """Return the prefix of a command that runs on the machine."""

    async def start(self) -> None: ...

    async def cut_for(self, cut: Cut, seconds: float) -> None:
        """Lose all packets to one server, or to both, without a word."""

    async def stop(self) -> None: ...


class Network(Protocol):
    """The servers' addresses on their own side, and the wires to the machines."""

    words: str
    valkey: Address
    store: Address

    def wire(self, number: int) -> Wire: ...

    def left(self) -> list[str]:
        """Return what the network has left behind."""

    def close(self) -> None: ...


def open_network() -> Network:
    """A network of namespaces if this user may create one, else of proxies."""
    network = _Namespaces()
    try:
        network.open()
    except (OSError, subprocess.CalledProcessError):
        network.close()
        return _Loopback()
    return network


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class _Namespaces:
    """A bridge on this machine with one address for each server, and a namespace for each machine."""

    words = "network namespaces"

    def __init__(self) -> None:
        pid = os.getpid()
        self.name = f"mts{pid}"
        self.subnet = f"10.{64 + pid % 64}.{pid // 64 % 256}"
        self.valkey, self.store = Address(f"{self.subnet}.1", 6379), Address(f"{self.subnet}.2", 9000)

    def open(self) -> None:
        _ip("link", "add", self.name, "type", "bridge")
        for server in (self.valkey, self.store):
            _ip("addr", "add", f"{server.host}/24", "dev", self.name)
        _ip("link", "set", self.name, "up")
        _ip("netns", "add", f"{self.name}-0")
        _ip("netns", "del", f"{self.name}-0")

    def wire(self, number: int) -> "_Veth":
        return _Veth(self, number)

    def left(self) -> list[str]:
        lines = [*_ip("netns", "list").splitlines(), *_ip("-brief", "link").splitlines()]
        return [line for line in lines if line.startswith(self.name)]

    def close(self) -> None:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):  # it may not have been opened
            _ip("link", "del", self.name)


class _Veth:
    """A pair of virtual cards, one of them in the namespace of the machine."""

    def __init__(self, network: _Namespaces, number: int) -> None:
        self.valkey, self.store = network.valkey, network.store
        self._bridge, self._name = network.name, f"{network.name}-{number}"
        self._address = f"{network.subnet}.{10 + number}/24"

    def command(self, hostname: str) -> Sequence[str]:
        named = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', hostname)
        return ("ip", "netns", "exec", self._name, *named)

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
        server = self.valkey if cut == "Valkey cut" else self.store
        neighbour = (server.host, "dev", "eth0")
        nobody = ("lladdr", "02:00:00:00:00:01", "nud", "permanent")
        _ip("-n", self._name, "neigh", "replace", *neighbour, *nobody)
        await asyncio.sleep(seconds)
        _ip("-n", self._name, "neigh", "del", *neighbour)

    async def stop(self) -> None:
        for words in (("link", "del", self._name), ("netns", "del", self._name)):
            with contextlib.suppress(subprocess.CalledProcessError):  # it may not have been started
                _ip(*words)


class _Loopback:
    """This machine's own network."""

    words = "folders and proxies, without network namespaces"

    def __init__(self) -> None:
        self.valkey, self.store = (Address("127.0.0.1", free_port()) for _ in range(2))

    def wire(self, number: int) -> "_Proxies":
        return _Proxies(self)

    def left(self) -> list[str]:
        return []

    def close(self) -> None:
        pass


class _Proxies:
    """A proxy for each server, which one machine uses."""

    def __init__(self, network: _Loopback) -> None:
        self._valkey, self._store = FaultyProxy(network.valkey.port), FaultyProxy(network.store.port)
        self.valkey, self.store = Address("127.0.0.1", self._valkey.port), Address("127.0.0.1", self._store.port)

    def command(self, hostname: str) -> Sequence[str]:
        return ()

    async def start(self) -> None:
        await asyncio.gather(self._valkey.start(), self._store.start())

    async def cut_for(self, cut: Cut, seconds: float) -> None:
        cut_off = {
            "network cut": (self._valkey, self._store),
            "Valkey cut": (self._valkey,),
            "store cut": (self._store,),
        }
        await asyncio.gather(*(proxy.break_for("silent", seconds) for proxy in cut_off[cut]))

    async def stop(self) -> None:
        await asyncio.gather(self._valkey.stop(), self._store.stop())


class Machine:
    """A machine with a worker, which a service manager starts again whenever it ends."""

    def __init__(self, folder: Path, number: int, wire: Wire, environment: Mapping[str, str]) -> None:
        self.wire = wire
        self.busy = asyncio.Lock()
        """Held during a fault: one at a time happens to a machine."""
        self._parent, self._number, self._environment = folder, number, environment
        self._replaced = 0
        self._worker: Supervised | None = None

    @property
    def name(self) -> str:
        """The name of the host, which a new machine does not have from the one that it replaces."""
        return f"machine-{self._number}-{self._replaced}"

    @property
    def folder(self) -> Path:
        return self._parent / self.name

    @property
    def log(self) -> Path:
        return self._parent / f"{self.name}.log"

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        environment = {
            **self._environment,
            "APP__DATA_ROOT": str(self.folder / "data"),
            "APP__ARTIFACTS_ROOT": str(self.folder / "artifacts"),
            "PYTHONPATH": str(ROOT),
        }
        command = [*self.wire.command(self.name), sys.executable, "-m", "trainer", "worker"]
        self._worker = Supervised(self.name, command, environment, self._parent)
        self._worker.start()

    def is_training(self) -> bool:
        return bool(processes(self.folder / "data", "train-child"))

    async def kill(self, dead_seconds: float, *, is_replaced: bool = False) -> None:
        """Kill every process at once; then start the machine again, or another one with an empty folder."""
        await self._end()
        await asyncio.sleep(dead_seconds)
        if is_replaced:
            shutil.rmtree(self.folder)
            self._replaced += 1
        self.start()

    async def freeze(self, seconds: float) -> None:
        """Stop every process, and let them continue later."""
        self._signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self._signal(signal.SIGCONT)

    async def stop(self) -> int | None:
        """Ask the worker to end; return its exit code."""
        return None if self._worker is None else await self._worker.stop()

    async def end(self) -> None:
        """Leave nothing behind, however things stand."""
        await self._end()
        await self.wire.stop()

    async def _end(self) -> None:
        if self._worker is not None:
            await self._worker.abandon()
        while self._signal(signal.SIGKILL):
            await asyncio.sleep(0.01)

    def _signal(self, number: signal.Signals) -> bool:
        """Signal all processes of the machine; return False if there are none."""
        found = processes(self.folder / "data")
        for process in found:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(process.pid, number)
        return bool(found)
