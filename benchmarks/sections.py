"""The sections of a suite: which queries are asked, and how the measurement is laid out.

Time and quality have passes of their own. The timed rounds take the first `timed_queries` of the data, once in every
process. The quality pass takes the first `quality_queries`, once for every case. `data.limit` limits the data, and so
both of them.
"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Strict):
    """Which queries are asked. Without `root`, scenes that the package makes itself."""

    root: Path | None = Field(default=None, description="a folder in ReasonSeg's format, holding the split's folder")
    split: str | None = Field(default=None, description="the split asked; val, or test for weights that have seen val")
    count: int = Field(default=48, gt=0, description="queries to make, where the package makes them")
    seed: int = Field(default=0, ge=0, description="seed of the scenes")
    texts: Literal["first", "all"] = Field(default="first", description="one wording of each query, or all")
    limit: int | None = Field(default=None, gt=0, description="ask only the first so many queries")


class Plan(Strict):
    """How the measurement is laid out."""

    processes: int = Field(default=3, gt=0, description="fresh processes per case for timing")
    block: int = Field(default=8, gt=0, description="queries in a row before the next case takes its turn")
    timed_queries: int = Field(default=48, gt=0, description="queries that every process is timed with, at most")
    quality_queries: int | None = Field(
        default=None, ge=0, description="queries of the quality pass, at most; 0: none, scores are of timed queries"
    )
    quality_batch: int = Field(default=8, gt=0, description="queries that the quality pass evaluates at once")
    warmup: int = Field(default=12, ge=0, description="most queries to warm up with, per process")
    memory_processes: int = Field(default=3, ge=0, description="fresh processes per case for the memory pass; 0: none")
    memory_queries: int = Field(default=4, gt=0, description="queries of the memory pass, per process")
    beside: bool = Field(default=True, description="whether ceilings and the GPU's own time are measured as well")
    gallery: int = Field(default=4, ge=0, description="queries whose images and masks the report shows")
    training_seeds: int = Field(default=3, gt=0, description="seeds that each training is carried out with")
    gpu_memory: str | None = Field(default=None, description="size of the card that each process must fit, such as 8GB")
    save_masks: bool = Field(default=False, description="keep every mask, run-length encoded")
    time_limit_s: float = Field(default=600, gt=0, description="for a build with its warm-up, or a block")
