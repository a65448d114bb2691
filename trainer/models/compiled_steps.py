"""Steps by the compiled program of a model."""

from collections.abc import Sequence
from copy import copy
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional

from trainer.contracts.generations import DecodeStep
from trainer.models.step_program import KeyValueShape, StepProgram, padded
from trainer.models.steps import Floats, ModelState, Steps, as_floats
from trainer.native.library import OUTPUTS, PANEL, Build, Task

_MIN_ROOM_TOKENS = 64


class Choices(NamedTuple):
    """Draws, temperatures and excluded tokens of n sequences, by which the compiled step chooses their next tokens."""

    draws: Tensor
    """(n, steps), in [0, 1), in double precision."""
    temperatures: Tensor
    """(n,), in double precision."""
    barred: Sequence[Tensor]
    """For each sequence, True for the tokens (V,) that are never chosen."""
    end_id: int
    """The token after which a line ends."""


class CompiledSteps(Steps):
    """Sequences of a program, each with its row of memory and, for attention, its keys and values."""

    kind: DecodeStep = "compiled"

    def __init__(self, program: StepProgram, build: Build, state: ModelState, logits: Tensor) -> None:
        """Begin after a state of the model, with the logits (n, V) after it."""
        self._program, self._build = program, build
        self._operations = program.packed_operations()
        self.read_bytes = program.read_bytes
        n = state[0].shape[1]
        self._memory = torch.zeros(n, program.row_floats)
        self._logits = functional.pad(logits, [0, padded(program.vocabulary, OUTPUTS) - program.vocabulary])
        self._lengths = torch.zeros(n, dtype=torch.long)
        self._keys, self._values = torch.empty(0), torch.empty(0)
        self._room = 0
        if program.key_values is None:
            for offsets, tensor in zip(program.states, state, strict=True):
                for offset, of_layer in zip(offsets, tensor.unbind(), strict=True):  # (B, H)
                    self._memory[:, offset : offset + of_layer.shape[1]] = of_layer
        else:
            self._take_keys_and_values(program.key_values, state)

    @property
    def logits(self) -> Floats:
        return as_floats(self._logits[:, : self._program.vocabulary])

    def read(self, ids: Sequence[int], rows: Sequence[int]) -> None:
        self._do(torch.tensor(ids, dtype=torch.long).unsqueeze(0), 1, rows, _NO_CHOICES)

    def read_line(self, ids: Sequence[int], row: int) -> None:
        """Read tokens of one sequence, at least one."""
        self._do(torch.tensor(ids, dtype=torch.long).unsqueeze(1), len(ids), [row], _NO_CHOICES)

    def write(self, choices: Choices, ids: Sequence[int] | None = None) -> list[list[int]]:
        """Read one token of each sequence, if some are given; then choose tokens (n, steps), reading all but the last.

        There are as many steps as draws, or fewer: after the first in which a sequence ends its line.
        """
        n, steps = choices.draws.shape
        reads = int(ids is not None)
        numbers = torch.zeros(reads + steps, n, dtype=torch.long)
        if ids is not None:
            numbers[0] = torch.tensor(ids)
        written = self._do(numbers, reads, range(n), choices)
        chosen: list[list[int]] = numbers[reads : reads + written].t().tolist()
        return chosen

    def keep(self, rows: Sequence[int]) -> None:
        order = torch.tensor(rows, dtype=torch.long)
        self._memory, self._logits, self._lengths = self._memory[order], self._logits[order], self._lengths[order]
        if self._program.key_values is not None:
            self._keys, self._values = self._keys[:, order], self._values[:, order]

    def fork(self) -> Self:
        fork = copy(self)
        fork.keep(range(len(self._lengths)))  # copies the tensors
        return fork

    def memory_bytes(self) -> int:
        return sum(part.nbytes for part in (self._memory, self._logits, self._keys, self._values))

    def _do(self, ids: Tensor, reads: int, rows: Sequence[int], choices: Choices) -> int:
        """Read the first ids (reads + steps, n) and choose the others; return the number of steps that chose."""
        program, of_rows, steps = self._program, torch.tensor(rows, dtype=torch.long), len(ids) - reads
        if reads and not 0 <= int(ids.min()) <= int(ids.max()) < program.vocabulary:
            raise ValueError(f"Expected ids from 0 to {program.vocabulary - 1}")
        if program.key_values is not None:
            longest = int(self._lengths[of_rows].max()) + reads + max(0, steps - 1)
            if longest > program.key_values.context_tokens:
                raise ValueError(f"Expected {program.key_values.context_tokens} tokens at most, got {longest}")
            if longest > self._room:
                self._make_room(program.key_values, longest)
        threads, scratch_doubles = torch.get_num_threads(), max(program.vocabulary, self._room)
        addresses = [each.data_ptr() for each in choices.barred]
        barred = torch.tensor(addresses, dtype=torch.long)
        scratch = torch.empty(threads, scratch_doubles, dtype=torch.double)
        task = Task(
            operations=self._operations.data_ptr(),
            memory=self._memory.data_ptr(),
            keys=self._keys.data_ptr(),
            values=self._values.data_ptr(),
            logits=self._logits.data_ptr(),
            lengths=self._lengths.data_ptr(),
            rows=of_rows.data_ptr(),
            ids=ids.data_ptr(),
            draws=choices.draws.data_ptr(),
            temperatures=choices.temperatures.data_ptr(),
            barred=barred.data_ptr(),
            scratch=scratch.data_ptr(),
            n_operations=len(program.operations),
            row_floats=self._memory.shape[1],
            n=len(rows),
            sequences=len(self._lengths),
            room=self._room,
            vocabulary=program.vocabulary,
            logits_floats=self._logits.shape[1],
            steps=steps,
            end_id=choices.end_id,
            scratch_doubles=scratch_doubles,
            threads=threads,
            reads=reads,
        )
        return self._build.do(task)

    def _take_keys_and_values(self, shape: KeyValueShape, state: ModelState) -> None:
        """Take the state of a causal transformer, in which some positions are padding."""
        is_read = state[0].squeeze(0)  # (B, P)
        self._lengths[:] = is_read.sum(-1)
        longest = int(self._lengths.max())
        self._make_room(shape, longest)
        if longest == 0:
            return
        order = is_read.logical_not().int().argsort(dim=-1, stable=True)[:, :longest]  # positions read come first
        rows = torch.arange(len(order)).unsqueeze(-1)
        for layer in range(shape.layers):
            keys, values = (part.squeeze(0)[rows, order] for part in state[1 + 2 * layer : 3 + 2 * layer])
            missing = [0, 0, 0, 0, 0, self._room - longest]
            blocks = functional.pad(keys, missing).view(len(keys), -1, PANEL, *keys.shape[2:])
            self._keys[layer] = blocks.permute(0, 3, 1, 4, 2)  # from (B, blocks, PANEL, groups, D)
            self._values[layer, :, :, :longest, : shape.head_size] = values.transpose(1, 2)

    def _make_room(self, shape: KeyValueShape, tokens: int) -> None:
        """Double the room for keys and values, up to the model's context."""
        n, old, keys, values = len(self._lengths), self._room, self._keys, self._values
        self._room = padded(min(max(tokens + _MIN_ROOM_TOKENS, 2 * tokens), shape.context_tokens), PANEL)
        self._keys = torch.zeros(shape.layers, n, shape.groups, self._room // PANEL, shape.head_size, PANEL)
        self._values = torch.zeros(shape.layers, n, shape.groups, self._room, shape.width)
        if old:
            self._keys[..., : old // PANEL, :, :], self._values[..., :old, :] = keys, values


_NO_CHOICES = Choices(torch.empty(0, 0, dtype=torch.double), torch.empty(0, dtype=torch.double), (), -1)
