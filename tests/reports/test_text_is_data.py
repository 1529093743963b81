"""Names, queries and messages in reports are data: a page shows them as they are."""

import json
import re

import pytest
from rendered_markdown import active_tokens, texts_of, tokens_of
from run_factory import edit_lines, edit_run, failed, write_run
from training_factory import CLIP, falling, write_training

from lisabench.harness.records.run import read_run
from lisabench.reports.gate import ci
from lisabench.reports.gate import page as gate_page
from lisabench.reports.gate.checks import Check
from lisabench.reports.gate.outcome import Checked
from lisabench.reports.page.across_tables import side_by_side
from lisabench.reports.page.page import report_text
from lisabench.reports.run.across import compare_cases
from lisabench.reports.run.summary import summarise
from lisabench.reports.run_report import write_report
from lisabench.reports.training.compare import compare_folders
from lisabench.reports.training.page import write_training_report
from lisabench.reports.training.tables import training_sections

pytestmark = pytest.mark.no_clock

SMALL = {"queries": 8, "size": (24, 32), "gallery": 2}
HOSTILE = (
    "**b** [click](http://evil.example) ![i](x.png)",
    "<img src=x onerror=alert(1)> | a | &lt;",
    "# _h_ `c` ~~s~~ $a$ @everyone #1 \x1b[2J \u202e",
    "]: ``` --- > 1. \\",
)
FOLD = r"</?details>|<summary>[\w ,:]*</summary>"
# Emphasis and links that are ours.
OURS = {"strong_open", "strong_close", "link_open", "link_close", "image"}


def hostile_run(folder, hostile: str):
    """Write a run in which every text that comes from outside is a hostile one."""
    write_run(folder, status="failed", **SMALL)
    manifest = json.loads((folder / "run.json").read_text())
    text = json.dumps(manifest)
    edit_run(folder, **json.loads(text.replace('"sam"', json.dumps(hostile))))
    edit_run(
        folder,
        title=hostile,
        suite=hostile,
        command=f"lisabench run '{hostile}\n```\n# heading'",
        data=manifest["data"]
        | {"description": hostile, "split": hostile, "protocol": "reasonseg-x"},
        passport={"cpu": hostile, "gpu": hostile, hostile: hostile},
        versions={hostile: hostile},
        warnings=[hostile],
    )

    def changed(line):
        line = line | {"case": hostile if line["case"] == "sam" else line["case"]}
        if "query" not in line:
            return line
        line |= {"query": hostile, "warnings": [hostile]}
        line |= {"tags": {hostile: hostile, "reasoning_type": hostile}}
        if line["position"] == 3 and line["case"] == hostile:
            return failed(line, "error", hostile)
        return line

    for name in ("samples.jsonl", "memory.jsonl"):
        edit_lines(folder / name, changed)
    return folder


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_report_of_a_run_shows_names_and_messages_as_they_are(tmp_path, hostile):
    run = read_run(hostile_run(tmp_path, hostile))
    page = report_text(run, summarise(run))
    assert active_tokens(page) <= OURS - {"link_open", "link_close", "image"}
    assert "\x1b" not in page and "\u202e" not in page
    shown = " ".join(texts_of(page))
    begins = hostile.split("`")[0].split("\x1b")[0].strip()
    assert shown.count(begins) > 20
    assert not [text for text in texts_of(page) if text == "heading"]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_whole_report_is_written_whatever_names_are(tmp_path, hostile):
    page = write_report(hostile_run(tmp_path, hostile)).read_text()
    assert "could not be drawn" not in page
    assert active_tokens(page) <= OURS - {"link_open", "link_close"}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_comparison_shows_names_as_they_are(tmp_path, hostile):
    folder = hostile_run(tmp_path, hostile)
    assert not active_tokens(side_by_side(compare_cases(folder, "dual", hostile)))


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_gate_shows_names_and_problems_as_they_are(hostile):
    check = Check(case=hostile, metric="masks", verdict="missing", unit="IoU", why=hostile)
    texts = {
        "run": hostile,
        "baseline": hostile,
        "new": [hostile],
        "changed": {hostile: (hostile, None)},
    }
    for problem in (None, hostile):
        gate = Checked(outcome="broken", exit_code=5, checks=[check], problem=problem, **texts)
        page = gate_page.comment(gate)
        assert page.startswith(gate_page.MARK)
        page = page.removeprefix(gate_page.MARK)
        # What is folded, and nothing else.
        tags = [token.content.strip() for token in tokens_of(page) if token.type == "html_block"]
        assert all(re.fullmatch(FOLD, tag) for tag in tags)
        assert active_tokens(page) <= {"strong_open", "strong_close", "html_block"}
        assert "\x1b" not in page
        for line in ci.annotations(gate):
            assert line.startswith("::") and line.isprintable()


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_report_and_a_comparison_of_trainings_show_names_as_they_are(tmp_path, hostile):
    folder = write_training(tmp_path / "t", losses=falling(20), mious=[0.1, 0.2])
    manifest = json.loads((folder / "run.json").read_text())
    setup = manifest["setup"]
    setup["options"] |= {"recipe": hostile, "data": hostile, "val_split": hostile}
    edit_run(folder, setup=setup, environment={"cpu": hostile}, versions={hostile: hostile})
    page = write_training_report(folder).read_text()
    assert "could not be drawn" not in page
    assert active_tokens(page) <= OURS - {"link_open", "link_close"}
    clip = write_training(tmp_path / "clip", losses=falling(20), mious=[0.1, 0.2], options=CLIP)
    assert not active_tokens(training_sections(compare_folders([clip, folder])))
