"""DataLoaders whose workers live through group signals and show users their own data set."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from trainhooks.host.shield import WorkerInit, starting_workers


class ShowSource:
    """What a worker does first: show the user's own data set in `get_worker_info()`, and run the user's function."""

    def __init__(self, function: Callable[[int], None] | None) -> None:
        self.function = function

    def __call__(self, worker: int) -> None:
        info = get_worker_info()
        assert info is not None
        fetcher: Any = info.dataset
        object.__setattr__(info, "dataset", fetcher.source)  # this worker's copy
        if self.function is not None:
            self.function(worker)


def data_loader(
    fetcher: Dataset[Any], tasks: Sampler[Any], *, worker_init_fn: Callable[[int], None] | None, **options: Any
) -> DataLoader[Any]:
    """Make a DataLoader that hands each task of `tasks` to `fetcher`, in order."""
    return DataLoader(
        fetcher,
        batch_size=None,
        sampler=tasks,
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # its own: making an iterator draws a number
        worker_init_fn=WorkerInit(ShowSource(worker_init_fn)),
        **options,
    )


def shield(loader: Any) -> None:
    """Let the workers of a loader that the user made live through group signals too."""
    if isinstance(loader, DataLoader) and loader.num_workers > 0:
        loader.worker_init_fn = WorkerInit(loader.worker_init_fn)


def begin(loader: Any) -> Iterator[Any]:
    """Make a loader's iterator; its workers are born shielded."""
    if not isinstance(loader, DataLoader) or loader.num_workers == 0:
        return iter(loader)
    context = loader.multiprocessing_context
    method = torch.multiprocessing.get_start_method() if context is None else context.get_start_method()
    with starting_workers(method):
        return iter(loader)


def _as_it_is(value: Any) -> Any:
    """Return the value: a fetcher has collated its batch already."""
    return value
