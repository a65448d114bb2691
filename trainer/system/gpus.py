"""The GPUs that this process may use, found without torch."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

_GPU_DRIVER = Path("/proc/driver/nvidia/gpus")
_CARD = re.compile(r"(\S+), (.+), (?:([0-9]+) MiB|.*)")
_LISTED_CARD = re.compile(r"GPU \d+: .*\(UUID: (\S+)\)")
_LISTED_SLICE = re.compile(r"\s*MIG (\S+)\s+Device\s+\d+: \(UUID: (\S+)\)")
_NUMBER = re.compile(r"\+?[0-9]+")
_SLICE_SIZE = re.compile(r"(\d+)gb")


class Gpu(NamedTuple):
    name: str
    memory_bytes: int | None
    """None if the driver does not tell it."""


class Card(NamedTuple):
    """A GPU of the machine, with the MIG instances that it is split into, by UUID."""

    uuid: str
    gpu: Gpu
    slices: Mapping[str, Gpu] = {}


def find_gpus(environ: Mapping[str, str] = os.environ, driver: Path = _GPU_DRIVER) -> list[Gpu]:
    """Return the GPUs of a machine with a CUDA driver that this process may use; waits for the driver's program.

    Without that program, the names come from the driver's files; without these, there is one GPU of unknown kind.
    """
    program, variable = shutil.which("nvidia-smi", path=environ.get("PATH")), environ.get("CUDA_VISIBLE_DEVICES")
    if program is None:
        return visible_gpus(_cards_of(driver) or [Card("", Gpu("GPU", None))], variable)
    try:
        cards = _answer(program, "--query-gpu=uuid,name,memory.total", "--format=csv,noheader")
        return visible_gpus(parse_cards(cards, _answer(program, "-L")), variable)
    except (OSError, subprocess.SubprocessError):  # a driver that does not answer runs no training either
        return []


def parse_cards(queried: str, listed: str) -> list[Card]:
    """Parse the answers of nvidia-smi: a line per card with UUID, name and memory, and its list (`-L`) with slices.

    The memory of a slice is that of its profile, such as 1g.10gb, which is within 10 % of what the driver grants.
    """
    found = [match for line in queried.splitlines() if (match := _CARD.fullmatch(line.strip()))]
    cards = {card[1]: Gpu(card[2], int(card[3]) << 20 if card[3] else None) for card in found}
    slices: dict[str, dict[str, Gpu]] = {uuid: {} for uuid in cards}
    uuid = ""
    for line in listed.splitlines():
        if card := _LISTED_CARD.match(line):
            uuid = card[1]
        elif uuid in cards and (part := _LISTED_SLICE.match(line)):
            size = _SLICE_SIZE.search(part[1])
            slices[uuid][part[2]] = Gpu(f"{cards[uuid].name} MIG {part[1]}", int(size[1]) * 10**9 if size else None)
    return [Card(uuid, gpu, slices[uuid]) for uuid, gpu in cards.items()]


def visible_gpus(cards: Sequence[Card], variable: str | None) -> list[Gpu]:
    """Return the GPUs that CUDA finds with this value of CUDA_VISIBLE_DEVICES, in its order; None means no value.

    CUDA takes numbers, UUIDs of cards or their unique beginnings, or UUIDs of MIG instances. The first entry of another
    kind, or without a card, ends the list, and a repeated one empties it. Where CUDA finds a MIG instance, it finds
    this one only.
    """
    names = list(map(str, range(len(cards)))) if variable is None else [name.strip() for name in variable.split(",")]
    slices = {uuid: gpu for card in cards for uuid, gpu in card.slices.items()}
    kind = next((kind for kind in ("GPU-", "MIG-") if names and names[0].startswith(kind)), "")
    if kind:
        words = list(takewhile(lambda name: name.startswith(kind), names))
        known = [card.uuid for card in cards] if kind == "GPU-" else list(slices)
    else:
        words = [str(int(number[0])) for number in takewhile(bool, map(_NUMBER.match, names)) if number]
        known = list(map(str, range(len(cards))))
    found: list[int] = []
    is_named = str.startswith if kind == "GPU-" else str.__eq__
    for word in words if len({*words}) == len(words) else ():
        places = [place for place, name in enumerate(known) if is_named(name, word)]
        if len(places) != 1:
            break
        found += places
    if kind == "MIG-":
        return [slices[known[place]] for place in found[:1]]
    chosen = [cards[place] for place in found] if len({*found}) == len(found) else []
    first = [gpu for card in chosen for gpu in card.slices.values()][:1]
    return first or [card.gpu for card in chosen]


def _cards_of(driver: Path) -> list[Card]:
    cards: list[Card] = []
    for file in sorted(driver.glob("*/information")):
        lines = [line.partition(":") for line in file.read_text("utf-8", "replace").splitlines()]
        facts = {name: value.strip() for name, _, value in lines}
        cards.append(Card(facts.get("GPU UUID", ""), Gpu(facts.get("Model", "GPU"), None)))
    return cards


def _answer(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=True)
    return done.stdout
