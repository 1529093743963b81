"""Records as a table for notebooks, and the document's example of it."""

import re

import numpy as np
import pytest
from places import ROOT
from pycocotools import mask as coco
from raw_runs import raw_run
from run_factory import edit_lines, failed, make_older, write_run

import lisabench
from lisabench.harness.errors import UsageError
from lisabench.harness.records.run import read_run
from lisabench.reports.run.summary import summarise

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 0}
DOCUMENT = ROOT / "docs" / "records.md"


def example() -> str:
    """The document's block of Python that loads a run."""
    (block,) = (
        b
        for b in re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
        if "lisabench.load(" in b
    )
    return block


def test_the_documents_example_gives_medians_by_case_and_a_pivot_by_stage(
    tmp_path, monkeypatch, capsys
):
    summary = summarise(read_run(write_run(tmp_path / "runs" / "mine", **SMALL)))
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(example(), names)
    assert len(capsys.readouterr().out.splitlines()) > 6
    assert (
        set(names["latency_ms"].index) == set(names["stages_ms"].index) == {"dual", "sam", "clip"}
    )
    assert set(names["stages_ms"].columns) == {
        f"stages.{stage}_ns" for stage in summary.cases[0].time.stages
    }
    for case in summary.cases:
        assert names["latency_ms"][case.name] == pytest.approx(
            case.time.end_to_end_ms, rel=1e-12, abs=0
        )
        for stage, time in case.time.stages.items():
            shown = names["stages_ms"].loc[case.name, f"stages.{stage}_ns"]
            assert shown == pytest.approx(time.median_ms, rel=1e-12, abs=0)


def test_several_runs_are_told_apart_by_a_column(tmp_path):
    folders = [
        write_run(tmp_path / name, **SMALL | {"queries": count})
        for name, count in (("a", 8), ("b", 4))
    ]
    table = lisabench.load(*folders)
    rows = table[table.role == "model"].groupby("run").size()
    assert rows.to_dict() == {str(folders[0]): 3 * 3 * 8, str(folders[1]): 3 * 3 * 4}
    assert set(table[table.role == "control"].case) == {"whole-image", "centre-box", "empty"}


def test_a_failed_query_has_no_time_of_any_stage(tmp_path):
    write_run(tmp_path, cases=1, **SMALL)
    edit_lines(
        tmp_path / "samples.jsonl", lambda q: failed(q) if q["sample_id"] == "scene-0000" else q
    )
    table = lisabench.load(tmp_path)
    times = table[[name for name in table if name.startswith("stages.")]]
    assert times.shape[1] == 5
    assert np.array_equal(times.isna().all(axis=1), table.status == "oom")


@pytest.mark.parametrize("older", [False, True])
def test_kept_masks_are_in_cocos_form_whatever_wrote_them(tmp_path, older):
    write_run(tmp_path, cases=1, controls=False, **SMALL | {"gallery": 2})
    lines = raw_run(tmp_path).samples
    expected = {
        line["sample_id"]: coco.decode(line["mask_rle"]) for line in lines if "mask_rle" in line
    }
    if older:
        make_older(tmp_path)
    table = lisabench.load(tmp_path).dropna(subset="mask_rle.counts").set_index("sample_id")
    assert set(table.index) == set(expected) and len(expected) == 2
    for name, row in table.iterrows():
        rle = {"size": row["mask_rle.size"], "counts": row["mask_rle.counts"]}
        assert np.array_equal(coco.decode(rle), expected[name])


def test_loading_nothing_says_what_to_give():
    with pytest.raises(UsageError, match="folder of a run"):
        lisabench.load()
