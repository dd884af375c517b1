"""CPU cores as units: legal splits, workers that stay where they were put, and placement that is measured."""

import os
import threading
from pathlib import Path

import pytest
import torch

from rapidd.errors import DeviceError
from rapidd.partition.cpu import Worker, core_groups, cpu_table
from rapidd.partition.table import MAX_SPLITS, spread


@pytest.mark.parametrize(("units", "step"), [(1, 1), (2, 1), (7, 1), (64, 1), (132, 8), (304, 8), (16, 16)])
def test_splits_are_multiples_that_leave_both_sides_a_step(units: int, step: int) -> None:
    splits = spread(units, step)
    assert len(splits) <= MAX_SPLITS
    assert all(split % step == 0 and step <= split <= units - step for split in splits)
    assert list(splits) == sorted(set(splits))
    assert bool(splits) == (units >= 2 * step)


def test_the_table_is_of_the_cores_this_process_may_use() -> None:
    table, cores = cpu_table(None)
    assert cores == sorted(os.sched_getaffinity(0))
    assert table.units_total == len(cores)
    one, cores = cpu_table(1)
    assert (one.splits, one.unsupported, len(cores)) == ((), "one core cannot be split", 1)


def write_topology(root: Path, *places: tuple[int, int]) -> None:
    """``places[i]``: socket and physical core of the kernel's core i."""
    for core, (socket, physical) in enumerate(places):
        folder = root / f"cpu{core}" / "topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text(f"{socket}\n")
        (folder / "core_id").write_text(f"{physical}\n")


def test_cores_are_grouped_by_socket_and_physical_core(tmp_path: Path) -> None:
    write_topology(tmp_path, (0, 0), (1, 0), (0, 4), (0, 0), (1, 0))
    groups = core_groups([0, 1, 2, 3, 4], tmp_path)
    assert groups is not None
    assert [(group.within, group.name, group.units) for group in groups] == [
        ("socket 0", "core 0", (0, 3)),
        ("socket 0", "core 4", (2,)),
        ("socket 1", "core 0", (1, 4)),
    ]


def test_cores_are_not_grouped_where_the_system_does_not_tell_of_one(tmp_path: Path) -> None:
    write_topology(tmp_path, (0, 0))
    assert core_groups([0, 1], tmp_path) is None


def test_the_groups_of_this_machine_hold_each_core_once() -> None:
    table, cores = cpu_table(None)
    if table.groups is not None:  # a container may hide the topology
        assert sorted(core for group in table.groups for core in group.units) == cores


def test_more_units_than_cores_are_refused() -> None:
    with pytest.raises(DeviceError, match="may use"):
        cpu_table(10_000)


def test_each_worker_keeps_its_own_thread_count_and_cores() -> None:
    """torch's first operation in a thread re-reads the last count set by any thread: workers are made in turn."""
    _, cores = cpu_table(None)
    workers = [
        Worker(f"w{i}", own, threads, 0, lambda: None)
        for i, (own, threads) in enumerate([(cores, len(cores)), (cores[:1], 1), (cores[-1:], 1), (cores, len(cores))])
    ]
    results = [worker.submit(lambda: (torch.get_num_threads(), os.sched_getaffinity(0))) for worker in workers]
    for task in results:
        task.wait()
    assert [task.value[0] for task in results] == [len(cores), 1, 1, len(cores)]
    assert [task.value[1] for task in results] == [set(cores), {cores[0]}, {cores[-1]}, set(cores)]
    for worker in workers:
        worker.close()


def test_placement_names_the_cores_that_the_team_ran_on() -> None:
    _, cores = cpu_table(None)
    worker = Worker("pinned", cores[-1:], 1, 0, lambda: None)
    worker.submit(lambda: float(torch.ones(1 << 20).sum())).wait()
    assert worker.placement().units == cores[-1:]
    worker.close()


def test_a_probe_starts_a_worker_that_has_not_run_yet() -> None:
    _, cores = cpu_table(None)
    woken = threading.Semaphore(0)
    worker = Worker("asked", cores[:1], 1, 0, woken.release)
    ended = worker.probe()
    assert woken.acquire(timeout=10)
    assert ended()
    assert worker.placement().units == cores[:1]
    worker.close()


def test_a_worker_whose_cores_are_gone_says_so_instead_of_being_waited_for() -> None:
    """Workers of splits start hours after the cores were listed, and a control group's may be others by then. The
    engine's loop hung until the supervisor aborted it."""
    worker = Worker("decode-1", [100_000], 1, 0, lambda: None)
    asked = threading.Thread(target=pytest.raises, args=(DeviceError, worker.submit, lambda: None), daemon=True)
    asked.start()
    asked.join(10)
    assert not asked.is_alive()
    with pytest.raises(DeviceError, match=r"worker decode-1 cannot have cores \[100000\]: .*Invalid argument"):
        worker.submit(lambda: None)
    worker.close()


def test_a_task_starts_only_after_the_one_it_follows_on_another_worker() -> None:
    first = Worker("first", None, 1, 0, lambda: None)
    second = Worker("second", None, 1, 0, lambda: None)
    gate = threading.Event()
    order: list[str] = []

    def slow() -> str:
        gate.wait()
        order.append("first")
        return "first"

    def quick() -> str:
        order.append("second")
        return "second"

    earlier = first.submit(slow)
    later = second.submit(quick, after=earlier)
    assert not later.done
    gate.set()
    later.wait()
    assert (order, earlier.value, later.value) == (["first", "second"], "first", "second")
    first.close()
    second.close()


def test_a_worker_has_no_threads_before_its_first_task() -> None:
    """Idle teams made OpenMP put the working one's threads to sleep at every barrier."""
    before = threading.active_count()
    worker = Worker("lazy", None, 2, 0, lambda: None)
    assert (threading.active_count(), worker.placement().units) == (before, [])
    worker.close()  # nothing to end
    used = Worker("used", None, 1, 0, lambda: None)
    used.submit(lambda: None).wait()
    assert threading.active_count() == before + 1
    used.close()


def test_what_a_task_raises_is_raised_to_whoever_asks_for_its_value_and_the_worker_goes_on() -> None:
    worker = Worker("failing", None, 1, 0, lambda: None)
    failed, next_one = worker.submit(lambda: 1 // 0), worker.submit(lambda: 7)
    next_one.wait()
    assert failed.done
    with pytest.raises(ZeroDivisionError):
        _ = failed.value
    assert next_one.value == 7
    worker.close()
