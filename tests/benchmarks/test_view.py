"""``lisabench view``."""

import pytest
from command import lisabench
from run_factory import write_run
from training_factory import falling, write_training

pytestmark = pytest.mark.no_clock


@pytest.fixture
def opened(monkeypatch):
    """Collect the addresses that a browser would open."""
    addresses = []
    monkeypatch.setattr("webbrowser.open", addresses.append)
    return addresses


def test_the_page_is_written_from_the_records_opened_and_named(tmp_path, opened):
    folder = write_run(tmp_path / "a run", queries=4, size=(24, 32), gallery=1)
    done = lisabench("view", folder)
    page = folder / "report.html"
    assert done.returncode == 0 and done.stdout.strip() == str(page)
    assert opened == [page.resolve().as_uri()] and "%20" in opened[0]
    assert "the small red disc" in page.read_text()


def test_a_training_has_no_page_to_view(tmp_path, opened):
    folder = write_training(tmp_path / "t", losses=falling(4), mious=[0.1])
    done = lisabench("view", folder)
    assert done.returncode == 2 and opened == []
    assert "is a training or a study" in done.stderr and "report.md" in done.stderr
