"""Processes end with the process that started them, whatever they do and however that one ends."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
from waiting import HANGS_AFTER_S, is_alive, until

pytestmark = pytest.mark.no_clock


# The parent prints the id of its child, which it starts in one of three ways, and then waits.
PARENT = """
import multiprocessing, os, re, sys, time
from lisabench.benchmarks import subprocesses
from lisabench.harness.lifeline import end_with, lifeline

def work(line=None):
    if line is not None:
        end_with(line)
    # At once: the two children print at the same time.
    os.write(sys.stdout.fileno(), b"%d" % os.getpid() + bytes([10]))
    if sys.argv[2] == "holding Python's lock":
        re.match(r"(a+)+$", "a" * 60 + "b")
    while True:
        time.sleep(3600)

if __name__ == "__main__":
    if sys.argv[1] == "command":
        child = [sys.executable, sys.argv[0], "child", sys.argv[2]]
        subprocesses.run(subprocesses.Command(child, os.getcwd()))
    elif sys.argv[1] == "child":
        sys.stdout = open("child", "w")
        subprocesses.end_with_parent()
        work()
    else:
        context = multiprocessing.get_context(sys.argv[1])
        children = [context.Process(target=work, args=(lifeline(),)) for _ in range(2)]
        for child in children:
            child.start()
        children[0].join()
"""
WAYS = {"command": 1, "fork": 2, "spawn": 2, "forkserver": 2}  # and how many children it starts


@pytest.mark.parametrize("doing", ["sleeping", "holding Python's lock"])
@pytest.mark.parametrize("way", WAYS)
def test_children_end_when_their_parent_is_killed(tmp_path, way, doing):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    output = tmp_path / ("child" if way == "command" else "output")
    with (tmp_path / "output").open("w") as stdout:
        parent = subprocess.Popen([sys.executable, script, way, doing], cwd=tmp_path, stdout=stdout)
    until(lambda: output.exists() and output.read_text().count("\n") == WAYS[way])
    children = [psutil.Process(int(line)) for line in output.read_text().split()]
    assert all(child.is_running() for child in children)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until(lambda: not any(is_alive(child) for child in children))


def test_a_child_whose_parent_has_ended_before_does_not_begin(tmp_path):
    code = """
import os, sys
from lisabench.harness.lifeline import end_with, lifeline
line = lifeline()
if os.fork() == 0:
    os.read(0, 1)  # the end of the parent's life
    end_with(line)
    open("begun", "w").close()
"""
    alive, ours = os.pipe()
    child = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdin=alive)
    os.close(alive)
    assert child.wait(timeout=HANGS_AFTER_S) == 0
    (orphan,) = [p for p in psutil.process_iter() if str(tmp_path) == folder_of(p)]
    os.close(ours)
    until(lambda: not is_alive(orphan))
    assert not (tmp_path / "begun").exists()


def folder_of(process):
    try:
        return process.cwd()
    except (psutil.Error, OSError):
        return None
