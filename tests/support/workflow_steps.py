"""Runs the shell steps of workflows and the action as GitHub's runner would, in a test's folder."""

import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from places import ROOT

EXPRESSION = re.compile(r"\$\{\{ *([\w.-]+) *\}\}")
SHELL = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c")


def read(path: Path | str) -> dict[str, Any]:
    """Return a workflow or an action. ``on`` is the word; YAML 1.1 would take it for true."""
    content = yaml.safe_load((ROOT / path).read_text())
    return {"on" if key is True else key: value for key, value in content.items()}


@dataclass
class Runner:
    """A machine that runs steps.

    `workspace` is the checkout, and `temp` what the runner empties after a job.
    """

    workspace: Path
    temp: Path
    path: tuple[Path, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.temp.mkdir(parents=True, exist_ok=True)
        self.summary = self.temp / "summary.md"

    def run(self, step: dict[str, Any], context: dict[str, Any]) -> "Done":
        """One ``run`` step; `context` holds what its expressions may name."""
        outputs = self.temp / "outputs"
        outputs.write_text("")
        given = {key: resolved(value, context) for key, value in step.get("env", {}).items()}
        assert "${{" not in step["run"], "an expression in a script is a way to inject code"
        command = [*SHELL, step["run"]]
        done = subprocess.run(
            command,
            cwd=self.workspace,
            env=self._environment(outputs) | given,
            capture_output=True,
            text=True,
        )
        pairs = [line.partition("=") for line in outputs.read_text().splitlines()]
        return Done(
            done.returncode, done.stdout, done.stderr, {key: value for key, _, value in pairs}
        )

    def use(
        self, action: Path, inputs: dict[str, str], context: dict[str, Any] | None = None
    ) -> "Done":
        """The shell steps of a composite action, up to the first that fails."""
        described = read(action / "action.yml")
        unknown = inputs.keys() - described["inputs"].keys()
        assert not unknown, f"the action has no input {unknown}"
        asked = {
            name: inputs.get(name, entry.get("default"))
            for name, entry in described["inputs"].items()
        }
        here = (context or {}) | {"inputs": asked, "steps": {}}
        self.environment["GITHUB_ACTION_PATH"] = str(action)
        done = Done(0, "", "", {})
        for step in described["runs"]["steps"]:
            if "run" in step and done.code == 0:
                of_step = self.run(step, here)
                here["steps"][step.get("id")] = {"outputs": of_step.outputs}
                done = Done(
                    of_step.code,
                    done.stdout + of_step.stdout,
                    done.stderr + of_step.stderr,
                    done.outputs | of_step.outputs,
                )
        return done

    def _environment(self, outputs: Path) -> dict[str, str]:
        """Nothing of the machine's own but what its Python and its shell need."""
        kept = {
            key: os.environ[key]
            for key in ("HOME", "OMP_NUM_THREADS", "TMPDIR")
            if key in os.environ
        }
        path = os.pathsep.join([*map(str, self.path), os.environ["PATH"]])
        files = {
            "GITHUB_OUTPUT": outputs,
            "GITHUB_STEP_SUMMARY": self.summary,
            "RUNNER_TEMP": self.temp,
        }
        known = {
            "PATH": path,
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_REPOSITORY": "team/sample",
        }
        return kept | known | {key: str(value) for key, value in files.items()} | self.environment


@dataclass(frozen=True)
class Done:
    """What came of a step."""

    code: int
    stdout: str
    stderr: str
    outputs: dict[str, str]


def resolved(value: Any, context: dict[str, Any]) -> str:
    """Return a value with each expression, a name in the context, replaced by what it names."""

    def named(match: re.Match[str]) -> str:
        found: Any = context
        for part in match[1].split("."):
            found = found[part]
        return str(found)

    return EXPRESSION.sub(named, str(value))


def stand_in(folder: Path, name: str, says: str = "") -> Path:
    """Write a program that notes its arguments as a line of JSON in ``NAME.calls``, and prints."""
    folder.mkdir(parents=True, exist_ok=True)
    program, calls = folder / name, folder / f"{name}.calls"
    note = "import json, sys; print(json.dumps(sys.argv[1:]))"
    program.write_text(f"#!/usr/bin/env bash\npython3 -c '{note}' \"$@\" >> {calls}\n{says}\n")
    program.chmod(0o755)
    return calls


def calls_of(calls: Path) -> list[list[str]]:
    return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []
