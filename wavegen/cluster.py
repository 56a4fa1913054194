"""Ray: tasks over files on the processes of one or of many machines.

All machines need wavegen, Ray and, under the same paths, the files. A task may run twice, after its process or its
machine was lost, so it must come to the same result again.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from tqdm import tqdm

from wavegen.errors import WavegenError
from wavegen.progress import bar_options, one_torch_thread

RETRIES = 5
"""How often a task is started again after its process was killed or its machine was lost."""

TASKS_PER_CPU = 8
"""Tasks for each CPU of the cluster: few enough that starting them costs little, enough that none waits for long."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextlib.contextmanager
def ray_cluster(address: str | None = None) -> Iterator["Cluster"]:
    """Connect to a Ray cluster within the block, or start one of all cores of this machine.

    Args:
        address: the cluster's address; by default what ``RAY_ADDRESS`` says, the cluster that runs on this machine, or
            else a new one. A connection that the program has already is used, and left as it is.

    Raises:
        ModuleNotFoundError: ray is not installed.
        WavegenError: the address does not lead to a cluster.
    """
    import ray

    is_ours = not ray.is_initialized()
    if is_ours:
        try:
            ray.init(address=address or None, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise WavegenError(
                f"no Ray cluster at {address or 'the address in RAY_ADDRESS'}: {error}",
                where="--ray",
                remedy="start one with ray start --head, or leave the address out",
            ) from error
    try:
        yield Cluster()
    finally:
        if is_ours:
            ray.shutdown()


class Cluster:
    """The cluster that this process is connected to."""

    def task_count(self, items: int) -> int:
        """The number of tasks that suits so many items here."""
        import ray

        return min(items, TASKS_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1))))

    def map(
        self,
        work: Callable[[Item], Result],
        items: Sequence[Item],
        *,
        sizes: Sequence[int],
        title: str,
        unit: str = "file",
        gpus: int = 0,
        progress: bool = True,
    ) -> list[Result]:
        """Run ``work`` for each item as a task with one CPU and one torch thread; results in the order of the items.

        Args:
            work: function of a module; safe to run again for the same item.
            items: the work; sent to the processes.
            sizes: number of units in each item, for the bar.
            title, unit: title and unit of the progress bar.
            gpus: GPUs that each task needs for itself.
            progress: show a progress bar on stderr.

        Raises:
            WavegenError: raised by ``work``, or a task's process was killed more than ``RETRIES`` times.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(_run)
        waiting = {remote.remote(work, item, os.getcwd()): size for item, size in zip(items, sizes, strict=True)}
        references = list(waiting)
        with tqdm(total=sum(sizes), desc=title, unit=unit, disable=not progress, **bar_options()) as bar:
            try:
                while waiting:
                    done, _ = ray.wait(list(waiting), num_returns=1)
                    ray.get(done)  # raises a failure as soon as it is known
                    bar.update(sum(waiting.pop(reference) for reference in done))
                return list(ray.get(references))
            except RayTaskError as error:
                if isinstance(error.cause, WavegenError | ModuleNotFoundError):
                    raise error.cause from error
                raise
            except RayError as error:
                raise WavegenError(
                    f"{title}: a task was lost {RETRIES + 1} times",
                    where="--ray",
                    remedy="check the memory of the machines; the same command goes on where this one stopped",
                ) from error
            finally:
                for reference in waiting:
                    ray.cancel(reference)


def _run(work: Callable[[Any], Any], item: Any, folder: str) -> Any:
    os.chdir(folder)  # relative paths, also those in messages, are the user's
    with one_torch_thread():
        return work(item)
