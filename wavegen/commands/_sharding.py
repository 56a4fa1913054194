"""The options with which several processes or machines share the work of a command."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from wavegen.shards import Shard, parse_shard

if TYPE_CHECKING:
    from wavegen.cluster import Cluster

Item = TypeVar("Item")


def add_sharding(parser: argparse.ArgumentParser) -> None:
    """Add ``--shard``, ``--merge`` and ``--ray``, of which a user can give one."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--shard",
        type=parse_shard,
        metavar="I/N",
        help="do the I-th of N parts of the work, into a hidden folder below the results; N may run at once, anywhere",
    )
    group.add_argument(
        "--merge", action="store_true", help="join the parts of all shards; give the options that the shards were given"
    )
    group.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="do the work in processes of a Ray cluster, which all see the same files (default: the one that runs "
        "here, or a new one of this machine's cores)",
    )


def shards_for(cluster: "Cluster", out: Path, items: Sequence[Item]) -> list[tuple[Shard, list[Item]]]:
    """Divide items among shards: as many as suit the cluster, or as an earlier run below ``out`` had."""
    from wavegen.shards import shard_count

    count = shard_count(out) or cluster.task_count(len(items))
    shards = [Shard(index + 1, count) for index in range(count)]
    return [(shard, shard.of(items)) for shard in shards]


def run_shards(
    address: str,
    out: Path,
    items: Sequence[Item],
    work: Callable[[Any], Any],
    task: Callable[[Shard, list[Item]], Any],
    *,
    title: str,
    gpus: int = 0,
) -> None:
    """Run all shards as tasks of a Ray cluster.

    Args:
        address: the address of the cluster; empty for the default.
        out: the folder of the results.
        items: the items of the whole work.
        work: does one task; a function of a module.
        task: a shard and its items -> what ``work`` needs.
        title: title of the progress bar.
        gpus: GPUs that each task needs.
    """
    from wavegen.cluster import ray_cluster

    with ray_cluster(address) as cluster:
        shards = shards_for(cluster, out, items)
        tasks = [task(shard, own) for shard, own in shards]
        cluster.map(work, tasks, sizes=[len(own) for _, own in shards], title=title, gpus=gpus)
