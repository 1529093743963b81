"""Masks for other tools: pycocotools reads what is written."""

import json
import re

import numpy as np
import pytest
from command import lisabench as command
from places import ROOT
from pycocotools.coco import COCO
from run_factory import edit_lines, edit_run, write_run

import lisabench
from lisabench.harness.masks import decode
from lisabench.harness.records.run import read_run

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 6, "size": (24, 32)}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), gallery=6, **SMALL)


def test_every_kept_mask_is_yielded_once(run):
    found = {(mask.case, mask.sample_id): mask for mask in lisabench.masks(run)}
    expected = {}
    for case in read_run(run).cases:
        for record in case.scored:
            if record.mask_rle is not None:
                expected[case.name, record.sample_id] = decode(record.mask_rle)
    assert found.keys() == expected.keys() and len(found) >= 18
    for key, mask_HW in expected.items():
        assert found[key].mask_HW.dtype == bool and np.array_equal(found[key].mask_HW, mask_HW)


def test_pycocotools_reads_queries_and_results(run, tmp_path):
    done = command("report", run, "--format", "coco", "--out", tmp_path / "coco")
    assert done.returncode == 0, done.stderr
    data_set = COCO(str(tmp_path / "coco" / "queries.json"))
    results = data_set.loadRes(str(tmp_path / "coco" / "results" / "clip.json"))
    masks = [mask for mask in lisabench.masks(run) if mask.case == "clip"]
    assert len(results.anns) == len(masks)
    for annotation, mask in zip(results.anns.values(), masks, strict=True):
        image = data_set.imgs[annotation["image_id"]]
        assert (image["file_name"], image["query"]) == (mask.sample_id, mask.query)
        assert np.array_equal(results.annToMask(annotation) == 1, mask.mask_HW)


@pytest.mark.parametrize(("name", "file"), [("../../<b>|x", "*b__x*"), ("queries", "queries*")])
def test_a_case_has_a_file_of_its_own_whatever_its_name(tmp_path, name, file):
    run = write_run(tmp_path / "run", gallery=6, **SMALL)

    def renamed(row, key):
        return row | {key: name} if row[key] == "sam" else row

    for journal in ("samples.jsonl", "memory.jsonl"):
        edit_lines(run / journal, lambda row: renamed(row, "case"))
    cases = json.loads((run / "run.json").read_text())["cases"]
    edit_run(run, cases=[renamed(case, "name") for case in cases])
    done = command("report", run, "--format", "coco", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out" / "results").glob(file)
    others = set(tmp_path.rglob(file)) - {tmp_path / "out" / "queries.json"}
    assert others == {path}
    data_set = COCO(str(tmp_path / "out" / "queries.json"))
    assert len(data_set.loadRes(str(path)).anns) == 6


def test_what_cannot_be_exported_is_one_line(run, tmp_path):
    done = command("report", run, "--format", "coco")
    assert done.returncode == 2 and "name a folder with --out" in done.stderr
    bare = write_run(tmp_path / "bare", gallery=0, **SMALL)
    done = command("report", bare, "--format", "coco", "--out", tmp_path / "out")
    assert done.returncode == 2 and "keeps no mask" in done.stderr
    (tmp_path / "file").touch()
    done = command("report", run, "--format", "coco", "--out", tmp_path / "file")
    assert done.returncode == 2 and "name another folder" in done.stderr


def test_the_documents_example_shows_each_mask(tmp_path, monkeypatch, capsys):
    run = write_run(tmp_path / "runs" / "mine", gallery=2, **SMALL)
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "records.md").read_text(), re.DOTALL
    )
    (example,) = [block for block in blocks if "lisabench.masks(" in block]
    monkeypatch.chdir(tmp_path)
    exec(example, {"lisabench": lisabench})
    assert len(capsys.readouterr().out.splitlines()) == len(list(lisabench.masks(run)))
