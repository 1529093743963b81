"""The gates with a known change: what is planted, and that no gate is run twice."""

import json
import shutil
from dataclasses import dataclass

import planted_gates
import pytest
import yaml
from places import ROOT
from planted_gates import Calibration, Campaign, Gate, run_gates
from plants import PLANTS, UNCHANGED, Edit, Plant

pytestmark = pytest.mark.no_clock

FILES = ("models/execution/graphed.py", "models/adapters/graphed_stages.py")
SLOWER = Edit("models/adapters/fake.py", "self._wait(self.case.vision_ms)", ["self._wait(0.3)"])


@pytest.fixture
def tree(tmp_path):
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("plant", PLANTS.values(), ids=list(PLANTS))
def test_each_plant_fits_the_files_as_they_are(tree, plant):
    plant.apply(tree, products=7)
    sources = [path.read_text() for path in sorted(tree.rglob("*.py"))]
    for source in sources:
        compile(source, "planted", "exec")
    assert ("PlantedWork(device, 7)" in "".join(sources)) is bool(plant.work)
    assert ("64 << 20" in "".join(sources)) is bool(plant.mib)


def test_a_file_that_was_changed_is_named(tree):
    (tree / FILES[0]).write_text("")
    with pytest.raises(ValueError, match=r"graphed.py has the line .* 0 times"):
        PLANTS["work-1-percent"].apply(tree, products=1)


def test_as_many_products_are_planted_as_take_the_share_of_a_query():
    calibration = Calibration(query_ms=30.0, product_ms=0.007)
    plants = [PLANTS["unchanged"], PLANTS["work-1-percent"], PLANTS["work-3-percent"]]
    assert [calibration.products(plant) for plant in plants] == [0, 43, 129]
    assert calibration.share(plants[1]) == pytest.approx(0.01, rel=0.02)
    assert Calibration(query_ms=30.0, product_ms=9.0).products(plants[1]) == 1


@dataclass(frozen=True)
class PlantedSleep(Plant):
    """A fake's stage `vision` that takes 0.3 ms more: 3 % of its query."""

    def apply(self, tree, products):  # noqa: ARG002  (a fake computes none)
        SLOWER.apply(tree)


@pytest.fixture
def campaign(tmp_path):
    fake = {"adapter": "fake", "clock": "virtual", "vision_ms": 4.0}
    content = {
        "title": "t",
        "reference": "a",
        "data": {"count": 2},
        "plan": {"block": 1, "warmup": 0, "memory_processes": 1, "beside": False, "gallery": 0},
        "cases": {"a": fake},
        "gate": {"end_to_end": 0.004, "peak": None, "mask_iou": None, "gIoU": None, "cIoU": None},
    }
    suite = tmp_path / "s.yaml"
    suite.write_text(yaml.safe_dump(content))
    plants = [UNCHANGED, PlantedSleep("sleep")]

    def make(name):
        workspace = tmp_path / name
        workspace.mkdir()
        changes = ["plan.processes=2"]
        return Campaign(tmp_path / "out", workspace, str(suite), changes, plants, repeats=1)

    return make


@pytest.mark.slow
def test_a_campaign_that_is_begun_again_runs_what_is_left_and_nothing_twice(campaign, monkeypatch):
    monkeypatch.setattr(planted_gates, "MEASUREMENT_S", 60.0)
    monkeypatch.setattr(planted_gates, "seconds_of_measurements", lambda _: [60.0])
    shown = []
    assert run_gates(campaign("first"), 1.5, shown.append) == planted_gates.LEFT
    unchanged, left = shown
    assert unchanged.startswith("unchanged 1: exit code 0; ")
    assert left == "1 gates are left: run the same command again"

    second = campaign("second")
    cut_short = second.gates[1].folder / "base"
    cut_short.mkdir(parents=True)
    assert run_gates(second, 60, shown.append) == planted_gates.DONE
    assert shown[2] == unchanged
    assert shown[3].startswith("sleep 1: exit code 1; ")
    assert "time.end_to_end regression 1.0300x" in shown[3] and ", at first 1.0300x" in shown[3]
    assert len(second.gates[1].measurements()) == 2

    monkeypatch.setattr(Campaign, "run", lambda *_: pytest.fail("a gate was run twice"))
    assert run_gates(campaign("third"), 60, shown.append) == planted_gates.DONE
    assert shown[4:] == shown[2:4]


def test_a_gate_that_broke_is_left_and_ends_the_campaign(campaign, monkeypatch):
    broken = campaign("first")
    monkeypatch.setattr(Campaign, "run", lambda *_: 5)
    shown = []
    assert run_gates(broken, 60, shown.append) == planted_gates.BROKEN
    assert shown == ["unchanged 1 broke with exit code 5"]
    assert len(broken.left) == 2


def test_what_a_stage_takes_more_is_shown_as_a_share_of_a_query(tmp_path):
    gate = Gate(PLANTS["work-1-percent"], 1, tmp_path)
    ended = {"exit_code": 1, "seconds": 300.4, "products": 43, "share_of_a_query": 0.01003}
    (tmp_path / "gate.json").write_text(json.dumps(ended))
    whole = {"metric": "time.end_to_end", "verdict": "regression", "before": 30e6,
             "change": 1.0101, "low": 1.0082, "high": 1.012, "first": None}  # fmt: skip
    stage = {"metric": "time.decoder", "verdict": "not gated", "before": 0.5e6, "change": 1.6}
    (tmp_path / "check.json").write_text(json.dumps({"checks": [whole, stage]}))
    assert planted_gates.described(gate) == (
        "work-1-percent 1: exit code 1; 300 s, of which measuring none; planted 43 products, "
        "alone 1.00 %; time.end_to_end regression 1.0101x [1.0082, 1.0120]; decoder +0.300 ms, "
        "+1.00 % of a query"
    )


def test_the_records_of_a_gate_are_published_as_results_has_them(tmp_path):
    gate = Gate(PLANTS["work-1-percent"], 2, tmp_path / "out" / "work-1-percent" / "2")
    for look in ("", "again/1"):
        for side in ("base", "head", "parts/1-base"):
            (gate.folder / look / side).mkdir(parents=True)
            (gate.folder / look / side / "run.json").write_text(f"{look} {side}")
    for name in ("gate.json", "check.json", "comment.md"):
        (gate.folder / name).write_text(name)
    left = Gate(PLANTS["unchanged"], 1, tmp_path / "out" / "unchanged" / "1")
    for _ in range(2):  # the second time, over the first
        planted_gates.publish([left, gate], tmp_path / "results")
    folder = tmp_path / "results" / gate.plant.name
    files = [path for path in (tmp_path / "results").rglob("*") if path.is_file()]
    assert sorted(str(path.relative_to(folder)) for path in files) == [
        "2/again/base/run.json", "2/again/head/run.json", "2/base/run.json", "2/check.json",
        "2/comment.md", "2/gate.json", "2/head/run.json",
    ]  # fmt: skip
