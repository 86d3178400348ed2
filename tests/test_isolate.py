"Workers: what hangs, crashes or eats memory costs its own item and no other; nobody is left behind."

import math
import os
import subprocess
import sys
import threading
import time

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medkit.errors import DataError, MedkitError
from medkit.isolate import Limits, Worker, _position

QUICK = Limits(seconds=1.0, memory_mb=512)


def gone(pid: int) -> bool:
    "Whether a process ends within five seconds; a zombie has ended."
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_results_keep_the_order_of_items():
    with Worker("math:factorial") as worker:
        assert worker.run(list(range(50))) == [math.factorial(number) for number in range(50)]
        assert worker.run([]) == []
        assert worker.run([5]) == [120]


def test_every_calamity_costs_one_item(tmp_path):
    with Worker("time:sleep", limits=QUICK) as worker:
        results = worker.run([0, 30, 0, 30, 0])
    assert [result and result.reason for result in results] == [None, "timed_out", None, "timed_out", None]
    with Worker("builtins:bytearray", limits=QUICK) as worker:
        assert [result.reason for result in worker.run([1 << 40, 2 << 30])] == ["out_of_memory", "out_of_memory"]
    with Worker("os:_exit") as worker:
        assert [result.reason for result in worker.run([3])] == ["crashed"]


def test_a_victim_gets_a_second_chance(tmp_path):
    with Worker("jobs:victim") as worker:
        assert worker.run([str(tmp_path / "a"), str(tmp_path / "b")]) == ["done", "done"]


def test_a_worker_killed_from_outside_loses_nothing():
    with Worker("time:sleep") as worker:
        assert worker.run([0]) == [None]
        worker.process.kill()
        worker.process.wait()
        assert worker.run([0, 0]) == [None, None]
        threading.Timer(0.3, lambda: worker.process.kill()).start()
        assert worker.run([0.01] * 60) == [None] * 60


def test_closing_from_another_thread_ends_the_work_and_the_process():
    worker = Worker("time:sleep", limits=Limits(seconds=60))
    worker.run([0])
    pid = worker.process.pid
    threading.Timer(0.5, worker.close).start()
    started = time.perf_counter()
    with pytest.raises(DataError, match="closed"):
        worker.run([30])
    assert time.perf_counter() - started < 10 and gone(pid)


def test_a_worker_is_replaced_after_its_share():
    with Worker("builtins:len", limits=Limits(items=10)) as worker:
        pids = set()
        for _ in range(4):
            worker.run(["four"] * 10)
            pids.add(worker.process.pid)
    assert len(pids) == 4


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ends with its parent on Linux only")
def test_a_worker_ends_with_its_parent():
    code = ("import time\nfrom medkit.isolate import Limits, Worker\nworker = Worker('time:sleep', limits=Limits(seconds=60))\n"
            "worker.run([0])\nprint(worker.process.pid, flush=True)\nworker.run([50])")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    assert gone(pid)


def test_noise_of_a_decoder_reaches_neither_terminal_nor_answers(capfd):
    with Worker("builtins:print") as worker:
        assert worker.run(["noise\n" * 5000] * 3) == [None] * 3
    assert capfd.readouterr() == ("", "")


def test_a_function_that_is_not_there_is_one_error():
    for target in ("no_such_module:f", "math:no_such_function"):
        with Worker(target) as worker, pytest.raises(DataError) as caught:
            worker.run([1])
        assert caught.value.reason == "crashed" and None not in (caught.value.found, caught.value.expected)


def test_a_result_that_json_lacks_costs_its_item():
    with Worker("builtins:complex") as worker, pytest.raises(MedkitError):
        worker.run([1])


@pytest.mark.parametrize("odd", [{"seconds": 0}, {"seconds": -1}, {"memory_mb": None}, {"memory_mb": 1}, {"items": True}, {"seconds": float("nan")}], ids=str)
def test_odd_limits_are_refused(odd):
    with pytest.raises(DataError) as caught:
        Limits(**odd)
    assert caught.value.reason == "bad_option"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 20), max_size=4), st.integers(0, 20))
def test_marks_tell_at_which_item_a_worker_died(finished, started):
    marks = b"".join(b"." * count + b"!" for count in finished) + b"." * started
    assert _position(marks) == started - 1 if started else _position(marks) in (-1, finished[-1] if finished else -1)


def test_the_environment_of_a_worker_pins_one_thread():
    with Worker("os:getenv") as worker:
        assert worker.run(["OMP_NUM_THREADS"]) == ["1"]
    assert os.environ.get("PATH")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no alarm, so the total is limited there")
def test_where_there_are_alarms_a_list_has_no_limit_of_its_own(monkeypatch):
    monkeypatch.setattr(threading, "Timer", None)
    with Worker("builtins:len") as worker:
        assert worker.run(["four"]) == [4]
