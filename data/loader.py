"""Loading batches, in worker processes if asked to."""

import math
import multiprocessing
import signal
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

from data.pair_dataset import PairDataset
from data.sampler import TrainingSampler
from data.worker_failures import WorkerDeaths, end_with_program, error_chain, explain_failure
from util.device import cpu_cores

_END = object()
_worker_deaths = WorkerDeaths()


class PairLoader(DataLoader):
    """DataLoader without empty batches, which raises the data set's one-line UserErrors.

    Workers ship the parts of items; this process takes them to the device, where the data set
    completes the batch. A worker that dies, and memory that runs out, are UserErrors, too; they
    come up only where a batch is asked for.

    Args:
        dataset: a PairDataset or a Subset of one.
        device: where batches are wanted.
        arguments: of DataLoader.
    """

    def __init__(
        self, dataset: PairDataset | Subset, *, device: torch.device, **arguments: Any
    ) -> None:
        super().__init__(dataset, pin_memory=device.type == "cuda", **arguments)
        self._pairs = dataset.dataset if isinstance(dataset, Subset) else dataset
        self._device = device

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            earlier = multiprocessing.active_children()
            with _worker_deaths.raised():
                batches = super().__iter__()  # starts the workers
            _worker_deaths.watch()
            end_with_program(set(multiprocessing.active_children()) - set(earlier))
            while True:
                with _worker_deaths.raised():
                    packed = next(batches, _END)
                if packed is _END:
                    return
                if packed is not None:
                    yield self._pairs.complete(_unpack(*packed, self._device))
        except Exception as error:
            explained = explain_failure(error)
            if explained is None:
                raise
            # What the error holds on to would keep the other workers, and news of their end, here.
            batches = None
            for link in error_chain(error):
                traceback.clear_frames(link.__traceback__)
            raise explained from error


def create_loader(
    dataset: PairDataset | Subset,
    batch_size: int,
    *,
    training: bool,
    workers: int = 0,
    seed: int = 0,
    shuffle: bool = True,
    start_iteration: int = 0,
    device: torch.device | None = None,
) -> PairLoader:
    """Make the loader of a data set; items come out in the same batches for any `workers`.

    Args:
        dataset: a PairDataset or a Subset of one.
        batch_size: samples of a batch.
        training: True = endless shuffled batches (TrainingSampler, at `.batch_sampler`);
            False = one pass in order, the last partial batch included.
        workers: worker processes, at most the machine's cores; 0 = load in this process.
        seed: of the order of training.
        shuffle: False = training keeps the data set's order (--serial_batches).
        start_iteration: training batches already done before a resumed run.
        device: where batches are wanted; None is the CPU.
    """
    workers = min(workers, cpu_cores())
    if training:
        order: dict[str, Any] = {
            "batch_sampler": TrainingSampler(
                len(dataset), batch_size, seed, shuffle, start_iteration
            )
        }
    else:
        order = {"batch_size": batch_size, "shuffle": False, "drop_last": False}
    return PairLoader(
        dataset,
        device=device or torch.device("cpu"),
        **order,
        num_workers=workers,
        worker_init_fn=_init_worker,
        persistent_workers=training and workers > 0,
        collate_fn=_pack,
        # Its own generator: making a loader must not advance the global random state.
        generator=torch.Generator().manual_seed(seed),
    )


Layout = dict[str, tuple[torch.dtype, torch.Size]]


def _pack(
    items: list[dict[str, Any] | None],
) -> tuple[torch.Tensor, Layout, dict[str, list]] | None:
    """Batch the items that there are; None where --skip_bad_samples left none of them.

    All tensors in one, for each that goes from one process to another costs as much as 0.1 to
    0.3 MB; their layout; and lists of what is no tensor.
    """
    good = [item for item in items if item is not None]
    if not good:
        return None
    batch = {name: [item[name] for item in good] for name in good[0]}
    tensors = {
        name: torch.stack(batch.pop(name))
        for name, value in good[0].items()
        if isinstance(value, torch.Tensor)
    }
    # Widest numbers first: each tensor starts at a multiple of the size of its own.
    tensors = dict(sorted(tensors.items(), key=lambda named: -named[1].itemsize))
    flat = torch.cat([tensor.view(-1).view(torch.uint8) for tensor in tensors.values()])
    return flat, {name: (value.dtype, value.shape) for name, value in tensors.items()}, batch


def _unpack(
    flat: torch.Tensor, layout: Layout, others: dict[str, list], device: torch.device
) -> dict[str, Any]:
    """Undo `_pack`, with the tensors on `device`."""
    sizes = [dtype.itemsize * math.prod(shape) for dtype, shape in layout.values()]
    pieces = flat.to(device, non_blocking=True).split(sizes)
    tensors = {
        name: piece.view(dtype).view(shape)
        for piece, (name, (dtype, shape)) in zip(pieces, layout.items(), strict=True)
    }
    return {**tensors, **others}


def _init_worker(_worker: int) -> None:
    torch.set_num_threads(1)
    # They reach the whole group of processes: the main one finishes its iteration and saves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.excepthook = _without_broken_connections


def _without_broken_connections(kind: type[BaseException], *rest: Any) -> None:
    """A worker whose main process has ended need not say so: that one has told the reason."""
    if not issubclass(kind, EOFError | OSError):
        sys.__excepthook__(kind, *rest)
