"""What the tests have jobs do in processes of their own: it imports no torch."""

import os
import time
from pathlib import Path

from waiting import until

from lisabench.benchmarks.study.jobs import Job

FOLDER = "LISABENCH_TESTS_FOLDER"  # in which jobs note that they have begun


def seen(job: Job) -> dict:
    """Note when a job began and ended, and which GPU it was given.

    A seed of 13 fails, one of 14 ends its process, one of 15 hangs.

    Where there is a folder for notes, the dual of seed 1 is at work until clip of seed 0 has begun.
    """
    began = time.monotonic()
    if job.seed == 13:
        raise ValueError("bad\nluck")
    if job.seed == 14:
        os._exit(1)
    if job.seed == 15:
        Path(os.environ[FOLDER], f"{job}.{os.getpid()}").touch()
        time.sleep(3600)
    if FOLDER in os.environ:
        folder = Path(os.environ[FOLDER])
        (folder / str(job)).touch()
        if str(job) == "dual-1":
            until((folder / "clip-0").exists)
    gpu, process = os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()
    return {
        "job": str(job),
        "gpu": gpu,
        "process": process,
        "began": began,
        "ended": time.monotonic(),
    }
