"""What a server and a device install, by hash; and the bill of materials made of it."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = ("server", "device", "build")


def pinned(text: str) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def named(requirements: list[str]) -> set[str]:
    return {re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", one)[0]).lower() for one in requirements}


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_of_a_lock_has_its_hashes(name: str) -> None:
    text = (ROOT / "locks" / f"{name}.txt").read_text()
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pinned(text)) >= 2
    for block in blocks:
        assert "--hash=sha256:" in block, block.partition("\n")[0]
    assert "://" not in text.replace("https://pip.pypa.io", ""), "no index of one machine"


def test_the_locks_hold_what_the_package_needs_in_its_tested_versions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tested = pinned((ROOT / "constraints.txt").read_text())
    server, device = (pinned((ROOT / "locks" / f"{name}.txt").read_text()) for name in ("server", "device"))
    assert named(project["dependencies"]) <= set(device)
    assert named(project["dependencies"] + project["optional-dependencies"]["serve"]) <= set(server)
    assert device.items() <= server.items(), "a device's packages are a part of a server's"
    assert {name: version for name, version in server.items() if tested.get(name, version) != version} == {}
    assert not {"torch", "timm", "scikit-learn", "ray"} & set(server)


def test_the_image_installs_by_hash_on_a_base_of_choice() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert text.count("FROM ${BASE}") == len(re.findall("^FROM ", text, re.MULTILINE)) == 2
    assert "--require-hashes --only-binary :all: --requirement locks/server.txt" in text
    for command in re.findall(r"pip (?:install|wheel) [^\\&\n]*", text):
        assert "--require-hashes" in command or "--no-deps" in command, command


def test_the_bill_names_every_package() -> None:
    lock = ROOT / "locks" / "device.txt"
    done = subprocess.run(
        [sys.executable, "-I", str(ROOT / "locks" / "bill.py"), str(lock)], capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.6")
    listed = {re.sub(r"[-_.]+", "-", one["name"]).lower(): one["version"] for one in told["components"]}
    assert listed == pinned(lock.read_text())
    for one in told["components"]:
        assert one["purl"].startswith("pkg:pypi/")
        assert all(re.fullmatch("[0-9a-f]{64}", f["hashes"][0]["content"]) for f in one["externalReferences"])
