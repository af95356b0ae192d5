"""What the data preparation programs share: work in parallel with a progress bar."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")


def run_in_parallel(
    function: Callable[[Task], Outcome], tasks: Iterable[Task], workers: int, description: str
) -> list[Outcome]:
    """Apply `function` to every task in `workers` threads; outcomes are in the tasks' order.

    Threads suffice: copying, decoding, resizing and encoding leave Python's lock. The bar shows
    on terminals only. The first exception stops the run: tasks not yet begun are dropped.
    """
    tasks = list(tasks)
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        futures = [pool.submit(function, task) for task in tasks]
        try:
            bar = tqdm(futures, desc=description, unit="image", disable=None)
            return [future.result() for future in bar]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
