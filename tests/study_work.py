"""What the tests have jobs do in processes of their own: it imports no torch."""

import os
import time

from lisabench.benchmarks.study_jobs import Job


def seen(job: Job) -> dict:
    """Notes when a job began and ended, and which GPU it was given; a seed of 13 fails, one of 14 takes its process."""
    began = time.monotonic()
    if job.seed == 13:
        raise ValueError("bad\nluck")
    if job.seed == 14:
        os._exit(1)
    time.sleep(0.3 if job.seed == 0 else 1.5)
    gpu, process = os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()
    return {"job": str(job), "gpu": gpu, "process": process, "began": began, "ended": time.monotonic()}
