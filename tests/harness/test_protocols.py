"""Which protocol data are evaluated by, and how it is described."""

import pytest

from lisabench.benchmarks import suite_file
from lisabench.harness.errors import UsageError
from lisabench.harness.metrics import METRICS
from lisabench.harness.protocols import (
    PROTOCOLS,
    protocol_named,
    protocol_of_data,
    split_of_data,
)

pytestmark = pytest.mark.no_clock


@pytest.mark.parametrize(
    ("layout", "source", "expected"),
    [
        ("refcoco+", "/data/refer_seg/refcoco+ (refs(unc).p)", "refcoco+"),
        ("grefcoco", "whatever", "grefcoco"),
        (None, "/data/reason_seg/ReasonSeg", "reasonseg"),
        (None, "/data/ReasonSeg/", "reasonseg"),
        ("hub", "hf://Ricky06662/ReasonSeg_test", "reasonseg"),
        ("hub", "hf://sj9909/ReasonSegX_test", "reasonseg-x"),
        ("hub", "hf://sj9909/ReasonSeg_refine", "reasonseg-r"),
        ("hub", "hf://lmms-lab/RefCOCOplus", "refcoco+"),
        ("hub", "hf://jxu124/refcocog", "refcocog"),
        ("parquet", "/data/RefCOCO", "refcoco"),
        # Data with protocols of their own, or with no known one.
        ("hub", "hf://moondream/refcoco-m", None),
        ("coco", "/data/instances_val2017.json", None),
        ("refclef", "/data/refer_seg/refclef (refs(unc).p)", None),
        (None, "/data/my_queries", None),
        (None, "/data/test", None),
    ],
)
def test_the_layout_or_the_name_of_the_data_says_the_protocol(layout, source, expected):
    assert protocol_of_data(layout, source) == expected


@pytest.mark.parametrize(
    ("split", "source", "expected"),
    [
        ("test", "hf://Ricky06662/ReasonSeg_val", "val"),
        ("test", "hf://Ricky06662/ReasonSeg_test", "test"),
        ("val", "hf://lmms-lab/RefCOCO", "val"),
        ("testA", "/data/refer_seg/refcoco (refs(unc).p)", "testA"),
        ("val", None, "val"),
        ("val", "/data/test", "val"),
    ],
)
def test_a_copy_on_the_hub_has_its_split_in_its_name(split, source, expected):
    assert split_of_data(split, source) == expected


def test_an_unknown_protocol_is_refused_before_anything_is_loaded():
    with pytest.raises(UsageError, match="unknown protocol 'refcocos' \\(did you mean 'refcoco'"):
        protocol_named("refcocos")
    with pytest.raises(UsageError, match="unknown protocol 'grefs'"):
        suite_file.load("tiny", {"data.protocol": "grefs"})


def test_none_is_no_protocol():
    assert protocol_named("none") is None and protocol_named(None) is None


def test_a_suite_is_recorded_without_the_key_that_older_versions_do_not_know():
    assert "protocol" not in suite_file.load("tiny", {}).definition.as_recorded()["data"]
    named = suite_file.load("tiny", {"data.protocol": "reasonseg"})
    assert named.definition.as_recorded()["data"]["protocol"] == "reasonseg"


def test_every_protocol_reports_known_metrics_and_is_described_in_a_line():
    for protocol in PROTOCOLS.values():
        assert set(protocol.metrics) <= set(METRICS)
        assert protocol.title in protocol.summary and "\n" not in protocol.summary
    reasonseg = PROTOCOLS["reasonseg"].summary
    assert reasonseg.startswith(
        "ReasonSeg: the first text of each query; gIoU, cIoU of short, long and all queries ("
    )
