"""Several processes that train one model, and the one that trains alone: what a step needs of the others.

The processes meet at the store of rank 0, which has restored the state and hands it to all. DistributedDataParallel
adds their gradients, each weighted by its real number of samples. No process judges here whether a peer is lost: while
it waits for the others it counts as alive, however long one of them needs, and a collective that fails ends the loop
with PeersLostError, for the supervisors to sort out (workers/replicas.py). They also see when all wait for each other.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from workers import meeting
from workers.errors import InterruptedRun, PeersLostError, WorkerError
from workers.runtime import Runtime

if TYPE_CHECKING:
    from workers.checkpoint import Tensors
    from workers.sampling import Batch
    from workers.tasks import TrainingTask

TIMEOUT = timedelta(days=20)  # of a collective: how long a peer may take is for the supervisors to judge
CONNECT_TIMEOUT = timedelta(seconds=30)  # to a store that has just taken a connection
PIECE_BYTES = 64 * 2**20  # of a tensor that is handed to all: each one that arrives is a sign of life
POLL_SECONDS = 0.05
BEAT_SECONDS = 1.0
Snapshot = tuple[int, "Tensors", dict[str, Any]]  # step, tensors and the rest of a checkpoint


class Alone:
    """A group of one: nothing to add, nobody to wait for."""

    leads = True  # restores, validates and publishes

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def gather(self, facts: dict[str, Any]) -> list[dict[str, Any]]:
        """The facts of all ranks, by rank; plain JSON."""
        return [facts]

    def loss_of(self, task: TrainingTask, example: Any) -> Callable[[Any], Tensor]:
        """The mean loss of a batch; `example` is any batch, of use to a group."""
        return lambda data: task.loss(data)

    def share(self, snapshot: Callable[[], Snapshot]) -> Snapshot | None:
        """Rank 0's state for the other ranks; None for rank 0, which has it."""
        return None

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Around whatever waits for other processes. Raises PeersLostError where one is gone."""
        return contextlib.nullcontext()

    def weigh(self, loss: Tensor, batch: Batch) -> Tensor:
        """The loss whose gradient, averaged over all processes, is that of the mean over all samples of the step."""
        return loss

    def agree(self, loss: Tensor, batch: Batch) -> float:
        """The mean loss over all samples of the step."""
        return float(loss.detach())

    def stopping(self) -> bool:
        """Whether all processes end after this step."""
        return self._runtime.stop.is_set()

    def follow(self, yes: bool) -> bool:
        """Rank 0's answer, for all."""
        return yes

    def wait_for_leader(self) -> None:
        """Until rank 0 has come here too."""


class Group(Alone):
    """One process of several. All methods but `weigh` and `stopping` are called by every rank, in the same order."""

    def __init__(self, runtime: Runtime, device: torch.device) -> None:
        super().__init__(runtime)
        self.leads = runtime.rank == 0
        self._world = runtime.world
        self._stopping = False
        threading.Thread(target=self._beat, name="group-beat", daemon=True).start()
        if runtime.ip.startswith("127."):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        with self._waiting():
            store = _meet(runtime)
            dist.init_process_group(
                "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl",
                store=store,
                rank=runtime.rank,
                world_size=runtime.world,
                timeout=TIMEOUT,
            )
        print(f"rank {runtime.rank} of {runtime.world} has met the others", flush=True)

    def gather(self, facts: dict[str, Any]) -> list[dict[str, Any]]:
        own = json.dumps(facts).encode()
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self._world)]
        with self._waiting():
            dist.all_gather(lengths, torch.tensor([len(own)]))
            longest = int(max(lengths))
            texts = [torch.empty(longest, dtype=torch.uint8) for _ in lengths]
            dist.all_gather(texts, torch.frombuffer(bytearray(own.ljust(longest)), dtype=torch.uint8))
        return [json.loads(bytes(text.numpy())) for text in texts]

    def loss_of(self, task: TrainingTask, example: Any) -> Callable[[Any], Tensor]:
        """By DistributedDataParallel, with the layout of its buckets settled before the first step.

        It lays them out anew once it has seen a backward pass. A run that goes on in a new process would begin with the
        old layout, and add in another order: so one pass without effect comes first.
        """
        loss = _Loss(task)
        with self.together():
            parallel = nn.parallel.DistributedDataParallel(loss, forward_sync_buffers=False)
            kept = [buffer.clone() for buffer in loss.buffers()]
            (parallel(example) * 0).backward()
        loss.zero_grad(set_to_none=True)
        for buffer, value in zip(loss.buffers(), kept, strict=True):
            buffer.copy_(value)
        return parallel

    def share(self, snapshot: Callable[[], Snapshot]) -> Snapshot | None:
        with self._waiting():
            if self.leads:
                self._send(*snapshot())
                return None
            return self._receive()

    def together(self) -> contextlib.AbstractContextManager[None]:
        return self._waiting(computes=True)

    @contextlib.contextmanager
    def _waiting(self, computes: bool = False) -> Iterator[None]:
        """`computes`: this process has work of its own between the others' answers."""
        runtime = self._runtime
        outer = runtime.waits, runtime.computes
        runtime.waits, runtime.computes = time.monotonic(), computes
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, dist.DistError) or "gloo" in str(error):
                raise PeersLostError(f"a peer is gone: {str(error).splitlines()[0][:200]}") from error
            raise
        finally:
            runtime.waits, runtime.computes = outer

    def weigh(self, loss: Tensor, batch: Batch) -> Tensor:
        return loss * (len(batch.samples) * self._world / batch.total)

    def agree(self, loss: Tensor, batch: Batch) -> float:
        """As for one; the same exchange says whether any rank was told to stop, and that all count the same step."""
        count = len(batch.samples)
        with self._waiting():  # a GPU computes the loss only now, and adds the gradients before
            weighted = count * float(loss.detach()) if count else 0.0
        sums = torch.tensor([weighted, count, self._runtime.stop.is_set()], dtype=torch.float64)
        with self._waiting():
            dist.all_reduce(sums)
        total, samples, told = sums.tolist()
        if samples != batch.total:
            raise WorkerError(f"the ranks disagree on the step: {samples:.0f} samples came together, not {batch.total}")
        self._stopping = told > 0
        return total / samples

    def stopping(self) -> bool:
        return self._stopping

    def follow(self, yes: bool) -> bool:
        answer = torch.tensor([yes])
        with self._waiting():
            dist.broadcast(answer, 0)
        return bool(answer)

    def wait_for_leader(self) -> None:
        self.follow(True)

    def _send(self, step: int, tensors: Tensors, state: dict[str, Any]) -> None:
        flat = [(file, name, tensor) for file, group in tensors.items() for name, tensor in group.items()]
        kinds = [(file, name, str(tensor.dtype).removeprefix("torch."), [*tensor.shape]) for file, name, tensor in flat]
        header = json.dumps({"step": step, "state": state, "tensors": kinds}).encode()
        dist.broadcast(torch.tensor([len(header)]), 0)
        dist.broadcast(torch.frombuffer(bytearray(header), dtype=torch.uint8), 0)
        for _, _, tensor in flat:
            self._hand_on(tensor.detach().cpu().contiguous())

    def _receive(self) -> Snapshot:
        length = torch.zeros(1, dtype=torch.int64)
        dist.broadcast(length, 0)
        header = torch.empty(int(length), dtype=torch.uint8)
        dist.broadcast(header, 0)
        found = json.loads(bytes(header.numpy()))
        tensors: Tensors = {}
        for file, name, dtype, shape in found["tensors"]:
            tensor = torch.empty(shape, dtype=getattr(torch, dtype))
            self._hand_on(tensor)
            tensors.setdefault(file, {})[name] = tensor
        return found["step"], tensors, found["state"]

    def _hand_on(self, tensor: Tensor) -> None:
        """From rank 0 to all, piece by piece: how long that takes depends on the size."""
        for piece in tensor.reshape(-1).split(max(1, PIECE_BYTES // tensor.element_size())):
            self._runtime.waits = time.monotonic()
            self._runtime.progress()
            dist.broadcast(piece, 0)

    def _beat(self) -> None:
        """While this process waits for others it is not the one that hangs: its own supervisor must know."""
        while True:
            time.sleep(BEAT_SECONDS)
            since = self._runtime.waits
            if since is not None and time.monotonic() - since > BEAT_SECONDS:
                self._runtime.progress()


class _Loss(nn.Module):
    """A task's loss as a module, for DistributedDataParallel to wrap."""

    def __init__(self, task: TrainingTask) -> None:
        super().__init__()
        self.model = task.model
        self._task = task

    def forward(self, data: Any) -> Tensor:
        return self._task.loss(data)


def join(runtime: Runtime, device: torch.device) -> Alone:
    """The group of this process: met, if there is one. Raises InterruptedRun if told to stop meanwhile."""
    return Group(runtime, device) if runtime.world > 1 else Alone(runtime)


def _meet(runtime: Runtime) -> dist.Store:
    """The generation's part of rank 0's store, once all ranks are here; how long that may take the supervisors know.

    Its keys begin with what only the group's supervisors know: whoever does not can't be counted among the ranks.
    """
    assert runtime.store is not None
    host, _, port = runtime.store.rpartition(":")
    store = dist.PrefixStore(f"{runtime.store_prefix}/{runtime.fence}", _open_store(runtime, host, int(port)))
    store.set(f"here/{runtime.rank}", "1")
    all_ranks = [f"here/{rank}" for rank in range(runtime.world)]
    while not store.check(all_ranks):
        _wait(runtime)
    return store


def _open_store(runtime: Runtime, host: str, port: int) -> dist.Store:
    """Rank 0's listens at the port that its supervisor holds: nobody can take it between two generations.

    Left to itself it would listen on every address, and two groups on one machine would be in each other's way.
    """
    if runtime.rank == 0:
        own = runtime.store_descriptor
        if own is not None:
            meeting.listen(own, backlog=2 * runtime.world)
        return dist.TCPStore(host, port, None, True, TIMEOUT, wait_for_workers=False, master_listen_fd=own)
    while True:
        with contextlib.suppress(OSError):
            socket.create_connection((host, port), 1.0).close()
            store = dist.TCPStore(host, port, None, False, CONNECT_TIMEOUT, wait_for_workers=False)
            store.set_timeout(TIMEOUT)
            return store
        _wait(runtime)


def _wait(runtime: Runtime) -> None:
    if runtime.stop.is_set():
        raise InterruptedRun("told to stop while waiting for the other replicas")
    time.sleep(POLL_SECONDS)
