"""``splitveil report`` as typed."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from splitveil.cli.report import run
from splitveil.core.errors import InputError

from .conftest import MakeAudit
from .plans import make_plan


def invoke(*arguments: str) -> tuple[int, str, BaseException | None]:
    app = typer.Typer()
    app.command()(run)
    result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.stdout, result.exception


def test_several_folders_make_one_page(make_audit: MakeAudit, tmp_path: Path) -> None:
    a, b, out = make_audit("a", samples=0), make_audit("b", samples=0), tmp_path / "new" / "page.html"
    code, stdout, _ = invoke(str(a), str(b), "--out", str(out))
    assert code == 0
    assert stdout.replace("\n", "") == str(out)
    assert "Leakage report" in out.read_text()


def test_an_empty_folder_is_an_error_and_no_page(tmp_path: Path) -> None:
    code, _, error = invoke(str(tmp_path), "--out", str(tmp_path / "page.html"))
    assert code == 1
    assert isinstance(error, InputError)
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("arguments", [(), ("--no-such-option",)])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert invoke(*arguments)[0] == 2


def test_a_plan_makes_its_page_alone(make_audit: MakeAudit, tmp_path: Path) -> None:
    make_plan().save(tmp_path / "plan.json")
    out = tmp_path / "plan.html"
    code, stdout, _ = invoke(str(tmp_path / "plan.json"), "--out", str(out))
    assert (code, stdout.replace("\n", "")) == (0, str(out))
    assert "SplitVeil plan" in out.read_text()
    code, _, error = invoke(str(tmp_path / "plan.json"), str(make_audit("a", samples=0)), "--out", str(out))
    assert code == 1
    assert isinstance(error, InputError)
