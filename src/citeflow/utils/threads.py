"""Threads that compute side by side."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from threadpoolctl import threadpool_limits

from citeflow.utils.system import num_cores


@contextlib.contextmanager
def thread_per_core() -> Iterator[ThreadPoolExecutor]:
    """Give a pool of a thread for each core, on which numpy's products do not start others.

    numpy's own threads wait for each other by turning in a circle, so that on cores that others use
    too, a product takes many times as long. And the last bits of a product may depend on how many
    threads share it; here they are the same on any number of cores.
    """
    with threadpool_limits(1, user_api="blas"):
        pool = ThreadPoolExecutor(num_cores(), thread_name_prefix="compute")
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)
