"""Images that other processes decode ahead are those that the data set itself reads."""

import multiprocessing
import os
import re
import shutil

import numpy as np
import psutil
import pytest

from lisabench.datasets.decoding import AheadDecoder
from lisabench.datasets.reasonseg import ReasonSeg
from lisabench.datasets.scenes.cache import embedded
from lisabench.harness.errors import DataError

pytestmark = pytest.mark.no_clock


@pytest.fixture(scope="module")
def samples():
    return ReasonSeg(embedded("val", 300, 1), "val", limit=12)


@pytest.fixture(params=[0, 2], ids=["here", "two processes"])
def decoder(request, samples):
    was_daemon = multiprocessing.current_process().daemon
    decoder = AheadDecoder(samples, request.param, batch=4, block=8)
    yield decoder
    decoder.close()
    multiprocessing.current_process().daemon = was_daemon


def check(decoder, samples, positions):
    decoded = list(decoder.samples(positions))
    assert [sample.id for sample in decoded] == [samples[position].id for position in positions]
    for sample, position in zip(decoded, positions, strict=True):
        expected = samples[position]
        np.testing.assert_array_equal(sample.image, expected.image)
        np.testing.assert_array_equal(sample.target_HW, expected.target_HW)
        assert (sample.image_id, sample.query) == (expected.image_id, expected.query)


def test_samples_come_in_order_block_after_block(decoder, samples):
    check(decoder, samples, range(8))
    check(decoder, samples, range(8, 12))
    check(decoder, samples, [3, 1, 2])


def test_a_block_that_was_left_early_does_not_disturb_the_next(decoder, samples):
    assert next(decoder.samples(range(8))).id == samples[0].id
    check(decoder, samples, range(4, 12))


def test_the_processes_live_from_block_to_block_and_end_when_closed(samples):
    before = {child.pid for child in psutil.Process(os.getpid()).children()}
    decoder = AheadDecoder(samples, 2, batch=4, block=8)

    def workers():
        return {child.pid for child in psutil.Process(os.getpid()).children()} - before

    started = workers()
    assert len(started) >= 2
    check(decoder, samples, range(4))
    assert workers() == started
    decoder.close()
    assert workers().isdisjoint(started)


def test_only_the_images_are_read_when_they_are_needed(decoder, samples, monkeypatch):
    """So the wait for them is the decoding and nothing else."""
    expected = [samples[position].image_id for position in range(4)]
    in_order = decoder.samples(range(4))
    monkeypatch.setattr("lisabench.datasets.reasonseg.read_annotation", None)
    monkeypatch.setattr("lisabench.datasets.reasonseg.image_hash", None)
    assert [sample.image_id for sample in in_order] == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_cannot_be_read_is_an_error_of_one_line_that_names_it(
    samples, tmp_path, workers
):
    root = shutil.copytree(samples[0].source.parents[1], tmp_path / "data")
    copied = ReasonSeg(root, "val", limit=4)
    damaged = copied[2].source
    decoder = AheadDecoder(copied, workers, batch=2, block=4)
    in_order = decoder.samples(range(4))
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(
        DataError, match=f"^{re.escape(str(damaged))}: is damaged.*replace the file$"
    ):
        list(in_order)
    decoder.close()


def test_images_that_are_too_large_for_their_place_are_sent(samples, monkeypatch):
    monkeypatch.setattr("lisabench.datasets.decoding.PLACE_BYTES", 1024)
    decoder = AheadDecoder(samples, 1, batch=4, block=8)
    check(decoder, samples, range(4))
    decoder.close()


def test_a_sample_with_other_pixels_reads_no_image_file(samples, monkeypatch):
    image_HW3 = samples[0].image
    sample = samples.with_pixels(0, lambda: image_HW3)
    monkeypatch.setattr("lisabench.datasets.samples.read_image", None)
    assert sample.image is image_HW3
    assert sample.target_HW.shape == image_HW3.shape[:2]
