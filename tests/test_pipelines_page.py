"""docs/pipelines.md: its policy is read, its commands are ours, its pipelines are YAML, its exit codes are right."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from splitveil.cli import app
from splitveil.cli.check import BROKEN
from splitveil.core.errors import BundleError, InputError
from splitveil.server.policy import PrivacyPolicy, PrivacyPolicyError

PAGE = (Path(__file__).parents[1] / "docs" / "pipelines.md").read_text()
FILES: dict[str, str] = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
STEPS = [
    *[step["run"] for step in yaml.safe_load(FILES["github.yml"])["jobs"]["gate"]["steps"] if "run" in step],
    *yaml.safe_load(FILES["gitlab.yml"])["leakage"]["script"],
    *re.findall(r"^    (splitveil .*)$", PAGE, re.MULTILINE),
]


def test_the_policy_is_one(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(FILES["policy.toml"])
    assert PrivacyPolicy.read(tmp_path / "policy.toml").suite == "standard-1"


@pytest.mark.parametrize("line", [line for line in STEPS if line.startswith("splitveil")])
def test_commands_are_ours(line: str) -> None:
    words = shlex.split(line.partition(" > ")[0])[1:]
    command = typer.main.get_command(app)
    while words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
    # Parsed, not run: the page's folders are not here.
    assert command.make_context("it", words, resilient_parsing=False).params


def test_exit_codes_are_those_of_the_page() -> None:
    told = {int(code) for code in re.findall(r"^\| (\d) \|", PAGE, re.MULTILINE)}
    assert told == {0, BROKEN, PrivacyPolicyError.exit_code, BundleError.exit_code, InputError.exit_code}
