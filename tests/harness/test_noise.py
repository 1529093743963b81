"""What else runs on the host: the processes that a measurement starts itself are not others."""

import multiprocessing
import time

import pytest

from lisabench.harness.noise import Watch

pytestmark = pytest.mark.no_clock

WORK_S = 0.2  # processor time, which does not depend on how busy the machine is


def work(done, leave):
    while time.process_time() < WORK_S:
        pass
    done.set()
    leave.wait()


@pytest.mark.parametrize("has_helpers", [True, False])
def test_what_helpers_do_is_counted_as_the_measurement_s_own(has_helpers):
    context = multiprocessing.get_context("spawn")
    done, leave = context.Event(), context.Event()
    helper = context.Process(target=work, args=(done, leave))
    helper.start()
    try:
        done.wait()
        helpers_s = Watch("cpu", has_helpers)._helpers_s()
    finally:
        leave.set()
        helper.join()
    if has_helpers:
        assert helpers_s >= 0.9 * WORK_S  # the kernel counts in hundredths of a second
    else:
        assert helpers_s == 0
