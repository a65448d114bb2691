"""Training in several processes by torch.distributed: DDP, and FSDP2 for models that do not fit on one device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import timedelta
from operator import methodcaller

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from trainer.contracts.training_options import Strategy
from trainer.training.batches import Batch
from trainer.training.processes import LossSum, Processes, Weights

_full: Callable[[Tensor], Tensor] = methodcaller("full_tensor")
_local: Callable[[Tensor], Tensor] = methodcaller("to_local")
_TIMEOUT = timedelta(days=1)
"""The first process may train a tokenizer while the others wait; torchrun ends them if it dies."""


class DistributedProcesses(Processes):
    """The processes that torchrun has started: gloo for numbers and on the CPU, NCCL on GPUs."""

    def __init__(self, device: torch.device) -> None:
        self.backend = "gloo" if device.type == "cpu" else "nccl"
        backends = "gloo" if device.type == "cpu" else f"cpu:gloo,{device.type}:nccl"
        distributed.init_process_group(backends, timeout=_TIMEOUT)
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()

    def weights(self, loss: LossSum, strategy: Strategy) -> Weights:
        if strategy == "fsdp":
            return _Sharded(loss)
        loss.model.to(loss.device)
        return _Replicated(loss)

    def first(self, number: float) -> float:
        tensor = torch.tensor(number, dtype=torch.float64)
        distributed.broadcast(tensor, src=0)
        return tensor.item()

    def each(self, number: int) -> tuple[int, ...]:
        numbers = [torch.tensor(0) for _ in range(self.count)]
        distributed.all_gather(numbers, torch.tensor(number))
        return tuple(map(int, numbers))

    def total(self, number: int) -> int:
        tensor = torch.tensor(number)
        distributed.all_reduce(tensor)
        return int(tensor)

    def sum(self, tensor: Tensor) -> Tensor:
        summed = tensor.detach().clone()
        distributed.all_reduce(summed)
        return summed

    @contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        if not self.is_first:
            self.total(0)
        yield
        if self.is_first:
            self.total(0)


class _Replicated(Weights):
    """DDP: a copy of the weights in each process; the mean gradient is the same in all of them."""

    def __init__(self, loss: LossSum) -> None:
        super().__init__(loss)
        self._replica = DistributedDataParallel(loss, gradient_as_bucket_view=True)

    def loss_sum(self, batch: Batch, *, is_last: bool) -> Tensor:
        self._replica.require_backward_grad_sync = is_last
        loss_sum: Tensor = self._replica(batch.inputs, batch.targets, batch.lengths)
        return loss_sum


class _Sharded(Weights):
    """FSDP2: a shard of the weights, gradients and moments in each process.

    The layers are a sharded copy of the given model, which waits on the CPU until the weights are gathered.
    """

    def __init__(self, loss: LossSum) -> None:
        self._whole, self._device = loss.model, loss.device
        loss.model.cpu()
        super().__init__(deepcopy(loss))
        self._mesh = mesh = init_device_mesh(loss.device.type, (distributed.get_world_size(),))
        for layers in self.model.modules():
            if isinstance(layers, nn.ModuleList):
                for layer in layers.children():
                    fully_shard(layer, mesh=mesh)
        fully_shard(self._loss, mesh=mesh)

    def loss_sum(self, batch: Batch, *, is_last: bool) -> Tensor:
        loss_sum: Tensor = self._loss(batch.inputs, batch.targets, batch.lengths)
        return loss_sum

    @contextmanager
    def gathered(self) -> Iterator[None]:
        whole = dict(self._whole.named_parameters())
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                whole[name].copy_(self.full(weight))
        self._whole.to(self._device)
        yield
        self._whole.cpu()

    def full(self, tensor: Tensor) -> Tensor:
        """Gather the shards by `all_gather`; `full_tensor` crashes at times by an operation of gloo with a long name.

        In torch 2.13 the two threads of gloo store the name of their last operation without a lock. A name of more than
        15 characters is on the heap, and both can free it.
        """
        if not tensor.dim():  # a norm: its operation is a sum, with a short name
            return _full(tensor)
        shard, count = _local(tensor), distributed.get_world_size()
        rows = -(-len(tensor) // count)  # of each shard but the last ones, as `torch.chunk` cuts
        padded = shard.new_zeros(rows, *shard.shape[1:])
        padded[: len(shard)] = shard
        shards = [torch.empty_like(padded) for _ in range(count)]
        distributed.all_gather(shards, padded)
        return torch.cat(shards)[: len(tensor)]

    def local(self, tensor: Tensor) -> Tensor:
        return _local(tensor)

    def sharded(self, full: Tensor, like: Tensor) -> Tensor:
        full = full.to(like.device, like.dtype)
        return distribute_tensor(full, self._mesh, [Shard(0)], src_data_rank=None)
