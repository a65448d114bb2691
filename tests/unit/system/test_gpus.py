"""The GPUs that CUDA finds, from the lists of nvidia-smi and CUDA_VISIBLE_DEVICES."""

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import pytest
import torch
from hypothesis import strategies as st

from tests.support.properties import for_all_pairs
from trainer.system.gpus import Card, Gpu, find_gpus, visible_gpus

A, T = "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
S, U = "MIG-c7384736-a75d-5afc-978f-d2f1294409fd", "MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d"
OLD = f"MIG-{T}/1/0"
"""The name of an instance before version 470 of the driver."""
MIXED = (
    f"{A}, NVIDIA A100-SXM4-80GB, 81920 MiB\n{T}, NVIDIA T1000, 8192 MiB\n",
    f"GPU 0: NVIDIA A100-SXM4-80GB (UUID: {A})\nGPU 1: NVIDIA T1000 (UUID: {T})\n",
)
"""What nvidia-smi answers to a query, and its list of devices."""
SPLIT = (
    MIXED[0],
    f"GPU 0: NVIDIA A100-SXM4-80GB (UUID: {A})\n  MIG 1g.10gb     Device  0: (UUID: {S})\n"
    f"  MIG 1c.3g.40gb  Device  1: (UUID: {U})\nGPU 1: NVIDIA T1000 (UUID: {T})\n",
)
BOTH = (
    "GPU-5d1, NVIDIA GRID, A100D-20C, [N/A]\n" + f"{T}, NVIDIA A30, 24576 MiB\n" + "not a card\n",
    f"GPU 0: NVIDIA GRID (UUID: GPU-5d1)\nGPU 1: NVIDIA A30 (UUID: {T})\n  MIG 1g.odd Device 0: (UUID: {OLD})\n"
    "GPU 2: Unknown (UUID: GPU-3)\n  MIG 1g.5gb Device 0: (UUID: MIG-3)\n",
)
A100, T1000 = Gpu("NVIDIA A100-SXM4-80GB", 81920 << 20), Gpu("NVIDIA T1000", 8192 << 20)
SMALL, LARGE = Gpu("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 10**10), Gpu("NVIDIA A100-SXM4-80GB MIG 1c.3g.40gb", 4 * 10**10)
GRID, A30_SLICE = Gpu("NVIDIA GRID, A100D-20C", None), Gpu("NVIDIA A30 MIG 1g.odd", None)


@pytest.mark.process
@pytest.mark.parametrize(
    ("listing", "variable", "expected"),
    [
        *((MIXED, None, [A100, T1000]), (MIXED, "1", [T1000]), (MIXED, "1, 0,7", [T1000, A100]), (MIXED, "", [])),
        *((MIXED, "-1", []), (MIXED, "0,-1,1", [A100]), (MIXED, "0,0", []), (MIXED, "1,5,0", [T1000])),
        *(
            (MIXED, name, [])
            for name in ("NoDevFiles", "none", "void", "all", "gpu0", "GPU-", "GPU-5d6", "MIG-1", ",0")
        ),
        *(
            (MIXED, T, [T1000]),
            (MIXED, T[:8], [T1000]),
            (MIXED, f"{T},{A}", [T1000, A100]),
            (MIXED, f"{T},GPU-0", [T1000]),
        ),
        *((MIXED, f"{T},{T[:9]}", []), (MIXED, f"{T},{T}", []), (MIXED, f"{T},0", [T1000]), (MIXED, f"0,{T}", [A100])),
        *((SPLIT, None, [SMALL]), (SPLIT, "0", [SMALL]), (SPLIT, "1,0", [SMALL]), (SPLIT, "1", [T1000])),
        *((SPLIT, A, [SMALL]), (SPLIT, S, [SMALL]), (SPLIT, U, [LARGE]), (SPLIT, f"{U},{S}", [LARGE])),
        *((SPLIT, f"MIG-0,{S}", []), (SPLIT, f"{S},{S}", []), (SPLIT, f"{S},0", [SMALL]), (SPLIT, S[:12], [])),
        *(
            (BOTH, "0", [GRID]),
            (BOTH, OLD, [A30_SLICE]),
            (BOTH, "GPU-5d1", [GRID]),
            (BOTH, "2", []),
            (BOTH, "MIG-3", []),
        ),
        (("", "No devices were found\n"), None, []),
    ],
)
def test_gpus__are_those_that_cuda_finds(
    listing: tuple[str, str], variable: str | None, expected: list[Gpu], tmp_path: Path
) -> None:
    queried, listed = listing
    program = f"""#!/bin/sh
case "$*" in
  "--query-gpu=uuid,name,memory.total --format=csv,noheader") printf %s '{queried}' ;;
  -L) printf %s '{listed}' ;;
  *) exit 2 ;;
esac
"""
    chosen = {} if variable is None else {"CUDA_VISIBLE_DEVICES": variable}
    assert find_gpus({"PATH": nvidia_smi(tmp_path, program), **chosen}) == expected


def nvidia_smi(folder: Path, program: str) -> str:
    """Write a program of the shell in place of the driver's; return its folder."""
    (folder / "nvidia-smi").write_text(program)
    (folder / "nvidia-smi").chmod(0o755)
    return str(folder)


@pytest.mark.process
def test_gpus__of_a_driver_that_does_not_answer_are_none(tmp_path: Path) -> None:
    failing = "#!/bin/sh\necho 'NVIDIA-SMI has failed, because it could not talk to the driver'; exit 9\n"
    assert find_gpus({"PATH": nvidia_smi(tmp_path, failing)}) == []


def test_gpus__without_the_drivers_program_are_those_of_its_files(tmp_path: Path) -> None:
    environ = {"PATH": str(tmp_path)}
    assert find_gpus(environ, tmp_path / "none") == [Gpu("GPU", None)]
    for name, text in (("1", f"Model: \t\t NVIDIA T4\nIRQ:   1\nGPU UUID: \t {T}\n"), ("2", "IRQ: 2\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "information").write_text(text)
    assert find_gpus(environ, tmp_path) == [Gpu("NVIDIA T4", None), Gpu("GPU", None)]
    assert find_gpus({**environ, "CUDA_VISIBLE_DEVICES": T}, tmp_path) == [Gpu("NVIDIA T4", None)]


WORDS = st.sampled_from(
    ["0", "1", "2", "01", "1gpu", "+1", "-1", "7", "", "none", "GPU-a", "GPU-ab", "GPU-abc", "GPU-b", "GPU-x"]
)


LISTED = [*permutations(["GPU-abc", "GPU-abd", "GPU-b"])]


@for_all_pairs(st.lists(WORDS, min_size=1, max_size=5), st.sampled_from(LISTED))
def test_numbers_and_uuids__are_read_as_torch_reads_them(words: Sequence[str], uuids: Sequence[str]) -> None:
    variable = ",".join(words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", variable)
        parsed = torch.cuda._parse_visible_devices()
    names = [name for name in parsed if isinstance(name, str)]
    numbers = [number for number in parsed if isinstance(number, int)]
    places = torch.cuda._transform_uuid_to_ordinals(names, list(uuids)) if names else numbers
    valid = places[: next((i for i, place in enumerate(places) if place >= len(uuids)), len(places))]
    cards = [Card(uuid, Gpu(uuid, None)) for uuid in uuids]
    assert visible_gpus(cards, variable) == [cards[place].gpu for place in valid]
