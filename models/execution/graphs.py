"""Functions of tensors, captured as CUDA graphs.

A stage of a LISA launches hundreds of GPU kernels or more. Launched one by one from Python, they
leave a fast GPU idle for about half of a query, whose time is then the host's, too. Captured once
and replayed, they are a single launch.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# CUDA asks for a few calls before a capture: libraries allocate workspaces and choose kernels in
# the first ones, and compiled layers are compiled.
CALLS_BEFORE_CAPTURE = 3

Shapes = tuple[torch.Size, ...]


@dataclass(frozen=True)
class Captured:
    """A function captured for inputs of certain shapes.

    Attributes:
        graph: replays it.
        inputs: the tensors that it reads.
        outputs: the tensors that it writes; the next replay overwrites them.
    """

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class GraphPool:
    """Makes functions whose graphs share one pool of memory.

    A graph's temporary memory is free for every other graph's: they are captured on one stream,
    since PyTorch gives freed memory only to the stream that had it. That is safe for the stages of
    a query: they are called one after the other, a result is used up before its function is called
    again, and for each size of a batch the functions are first called in the order of the stages,
    so that a later stage is captured while the results of earlier ones are in use.

    Args:
        device: ``cuda`` or ``cpu``; on a CPU, functions are called as they are.

    Attributes:
        captures: whether functions are captured.
        graphs: how many graphs were captured.
        capture_s: seconds that took, with the calls before each capture.
    """

    def __init__(self, device: str) -> None:
        self.captures = device.startswith("cuda")
        self.graphs = 0
        self.capture_s = 0.0
        self._handle: Any = None
        self._side_stream: Any = None
        if self.captures:
            self._handle = torch.cuda.graph_pool_handle()
            # Not the default stream, on which nothing can be captured.
            self._side_stream = torch.cuda.Stream()

    def graphed(self, function: Callable[..., tuple[Tensor, ...]]) -> "GraphedFunction":
        """Return the function, captured on its first call with inputs of each shape."""
        return GraphedFunction(function, self)

    def capture(
        self, function: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...]
    ) -> Captured:
        """Capture one call.

        Args:
            function: of tensors; neither it nor what it calls may wait for the GPU.
            inputs: of the shapes to capture for.
        """
        torch.cuda.synchronize()  # what was launched before is no part of the capture's time
        start_ns = time.perf_counter_ns()
        static_inputs = tuple(tensor.clone() for tensor in inputs)
        graph = torch.cuda.CUDAGraph()
        self._side_stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side_stream):
            for _ in range(CALLS_BEFORE_CAPTURE):
                function(*static_inputs)
            # Not by `torch.cuda.graph`, which collects garbage first: a third of a second for each
            # of the sizes of a data set's images. Other threads, such as NVML's readers, may call
            # CUDA meanwhile.
            graph.capture_begin(pool=self._handle, capture_error_mode="thread_local")
            try:
                outputs = function(*static_inputs)
            except BaseException:
                # Ending a broken capture fails, too, and would hide why it broke.
                with suppress(RuntimeError):
                    graph.capture_end()
                raise
            graph.capture_end()
        torch.cuda.synchronize()  # the calls before the capture
        self.graphs += 1
        self.capture_s += (time.perf_counter_ns() - start_ns) / 1e9
        return Captured(graph, static_inputs, outputs)


class GraphedFunction:
    """A function of tensors that is replayed as one CUDA graph for each shape of its inputs."""

    def __init__(self, function: Callable[..., tuple[Tensor, ...]], pool: GraphPool) -> None:
        self._function = function
        self._pool = pool
        self._captured: dict[Shapes, Captured] = {}

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the function's outputs, which the next call overwrites."""
        if not self._pool.captures:
            return self._function(*inputs)
        shapes = tuple(tensor.shape for tensor in inputs)
        if shapes not in self._captured:
            self._captured[shapes] = self._pool.capture(self._function, inputs)
        captured = self._captured[shapes]
        for static, given in zip(captured.inputs, inputs, strict=True):
            static.copy_(given, non_blocking=True)
        captured.graph.replay()
        return captured.outputs
