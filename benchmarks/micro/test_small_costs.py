"""What must stay cheap beside a query: starting, a region, and reading, drawing and counting masks.

Each test states its budget and compares the fastest round with it, which is the one that other
programs disturbed least. Tests in `tests/` look at no clock; these are for an idle machine.
"""

import subprocess
import sys

import cv2
import numpy as np
import pytest

from lisabench.datasets.drawing import draw_mask
from lisabench.datasets.image import breaks_off
from lisabench.datasets.reasonseg import ReasonSeg
from lisabench.datasets.scenes.generator import make, scene
from lisabench.harness import masks
from lisabench.harness.clock import HostClock
from lisabench.harness.metrics import count
from lisabench.harness.probe import NullProbe, TimingProbe

ENTRIES = 1000


def test_help(fastest):
    command = [sys.executable, "-m", "lisabench", "--help"]
    fastest(lambda: subprocess.run(command, check=True, capture_output=True), 0.4, rounds=5)


def enter(probe):
    for _ in range(ENTRIES):
        with probe.region("vision"):
            pass


def test_a_region_that_measures_nothing(fastest):
    probe = NullProbe()
    fastest(lambda: enter(probe), 1e-6, divided_by=ENTRIES)


def test_a_timed_region(fastest):
    probe = TimingProbe(HostClock())

    def query():
        with probe.query():
            enter(probe)

    fastest(query, 10e-6, divided_by=ENTRIES)


def test_a_sleep_of_20_ms_by_the_host_clock(fastest):
    clock = HostClock()

    def measured_ns():
        start = clock.mark()
        clock.wait(20_000_000)
        return clock.span_ns(start, clock.mark())

    assert fastest(measured_ns, 21e-3, rounds=5) >= 20_000_000


@pytest.fixture
def target_HW():
    target_HW = np.zeros((480, 640), np.uint8)
    target_HW[100:300, 200:500] = 1
    return target_HW


def test_counting_a_picture(fastest, target_HW):
    predicted_HW = np.roll(target_HW, 20, axis=1) == 1
    fastest(lambda: count(predicted_HW, target_HW), 5e-3)


def test_looking_for_the_end_of_an_image(fastest):
    pixels = np.random.default_rng(0).integers(0, 255, (1000, 1000, 3), dtype=np.uint8)
    jpeg = cv2.imencode(".jpg", pixels)[1].tobytes()
    fastest(lambda: breaks_off(jpeg), 1e-3)


def test_drawing_polygons_as_far_out_as_is_allowed(fastest):
    far = 2**31 - 1
    corners = [[-far, -far], [far, -far], [far, far], [-far, far]]
    annotation = {"shapes": [{"label": "target", "points": corners}]}
    assert fastest(lambda: draw_mask(annotation, 12, 16), 0.5).all()


def test_a_scene(fastest):
    """Scenes differ in size: the time is that of 640 x 480 pixels."""
    pixels = sum(scene(5, "val", index).image.size / 3 for index in range(14))
    fastest(
        lambda: [scene(5, "val", index) for index in range(14)],
        0.2,
        rounds=3,
        divided_by=pixels / (640 * 480),
    )


def test_reading_a_query(fastest, tmp_path):
    """The promise is 1,000 scenes in 20 s."""
    make(tmp_path / "data", "val", 8, seed=0)
    data = ReasonSeg(tmp_path / "data", "val")

    def read():
        for sample in data:
            assert sample.image.shape[:2] == sample.target_HW.shape

    fastest(read, 0.02, rounds=5, divided_by=len(data))


@pytest.fixture(params=["smooth", "noise"])
def mask_HW(request):
    """Return a mask of 1024 x 1024 pixels.

    It is an outline as models draw it, or the worst case, where every second pixel is a run.
    """
    levels_HW = np.random.default_rng(0).standard_normal((1024, 1024))
    if request.param == "smooth":
        levels_HW = cv2.GaussianBlur(levels_HW, (0, 0), 20)
    return levels_HW > 0


BUDGET_S = {"smooth": 20e-3, "noise": 0.5}


def test_encoding_a_mask(fastest, mask_HW, request):
    fastest(lambda: masks.encode(mask_HW), BUDGET_S[request.node.callspec.params["mask_HW"]])


def test_decoding_a_mask(fastest, mask_HW, request):
    rle = masks.encode(mask_HW)
    found_HW = fastest(lambda: masks.decode(rle), BUDGET_S[request.node.callspec.params["mask_HW"]])
    assert np.array_equal(found_HW, mask_HW)
