"""Paths as users write them: ``~`` is the home folder, and a name may be nearly right."""

from pathlib import Path

import pytest
import yaml
from command import lisabench
from run_factory import write_run
from sessions import TWO_FAKES

from lisabench.benchmarks import suite_file
from lisabench.benchmarks.training.setup import resolve_setup
from lisabench.harness.environment import cache_folder
from lisabench.harness.errors import UsageError
from lisabench.harness.paths import user_path

pytestmark = pytest.mark.no_clock


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_suite_and_what_it_names_may_lie_in_the_home_folder(home):
    content = TWO_FAKES | {"data": {"root": "~/scenes"}, "claims": "~/claims.yaml"}
    (home / "s.yaml").write_text(yaml.safe_dump(content))
    claim = {"claim": "c", "quantity": "time.end_to_end", "candidate": "b", "at_most": 2.0}
    (home / "claims.yaml").write_text(yaml.safe_dump(TWO_FAKES | {"claims": [claim]}))
    suite = suite_file.load("~/s.yaml")
    assert suite.data.root == str(home / "scenes") and suite.claims[0].claim == "c"
    assert suite_file.load("~/s.yaml", {"data.root": "~/b"}).data.root == str(home / "b")


def test_an_address_of_data_stays_as_it_is(home):
    address = "hf://~/name@main"
    changes = {"data.root": address}
    (home / "s.yaml").write_text(yaml.safe_dump(TWO_FAKES))
    assert suite_file.load("~/s.yaml", changes).data.root == address
    assert resolve_setup({"data": address}).options.data == [address]


def test_options_of_a_training_may_name_it_on_the_command_line_and_in_a_file(home):
    (home / "o.yaml").write_text("data: ~/d\noutput_dir: ~/out\n")
    given = {"config": Path("~/o.yaml"), "checkpoint_dir": Path("~/c")}
    options = resolve_setup(given).options
    expected = ([str(home / "d")], home / "out", home / "c")
    assert (options.data, options.output_dir, options.checkpoint_dir) == expected


@pytest.mark.parametrize("option", ["data", "output_dir", "checkpoint_dir"])
def test_an_empty_path_in_a_file_of_options_is_refused(home, option):
    (home / "o.yaml").write_text(f"{option}: ''\n")
    with pytest.raises(UsageError, match=f"{option} is empty"):
        resolve_setup({"config": home / "o.yaml"})


def test_every_path_of_the_command_line_is_expanded(home):
    done = lisabench("data", "make", "~/made", "--split=v", "--count", 1)
    assert done.returncode == 0, done.stderr
    assert (home / "made" / "v" / "000000.jpg").is_file()
    assert lisabench("data", "verify", "~/made").returncode == 0


def test_the_cache_may_lie_there_and_an_unknown_user_is_a_name_of_a_file(home, monkeypatch):
    monkeypatch.setenv("LISABENCH_CACHE", "~/cache")
    assert cache_folder() == home / "cache"
    assert user_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    assert user_path("a/~/b") == Path("a/~/b")


@pytest.mark.parametrize("split", ["../../x", "/tmp/x", "..", "a/b"])
def test_a_split_that_is_a_path_is_refused_and_nothing_is_written(home, split):
    done = lisabench("data", "make", home / "made", "--split", split, "--count", 1)
    assert done.returncode == 2 and "expected the name of a folder" in done.stderr
    assert not list(home.iterdir())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("run", "brigth.yaml"), "there is no suite brigth.yaml (did you mean 'bright.yaml'?)"),
        (("report", "rnu"), "there is no folder rnu (did you mean 'run'?)"),
        (
            ("check", "run", "--baseline", "bas.json"),
            "baseline bas.json (did you mean 'base.json'?)",
        ),
        (("report", "none/run"), "there is no folder none/run;"),
    ],
)
def test_a_path_that_is_not_there_is_named_with_the_nearest_that_is(
    tmp_path, monkeypatch, given, expected
):
    monkeypatch.chdir(tmp_path)
    for name in ("bright.yaml", "base.json"):
        (tmp_path / name).touch()
    write_run(tmp_path / "run", queries=2, size=(24, 32), gallery=0)
    done = lisabench(*given)
    assert done.returncode == 2 and expected in done.stderr
