import json
from pathlib import Path

import numpy as np
import pytest
import torch

from splitveil.cli.retrieve import run
from splitveil.core.errors import InputError
from splitveil.lab.auditing.gallery import Noiseless
from splitveil.lab.cut import split
from splitveil.lab.data import load_data
from splitveil.lab.defenses import DEFENSES
from splitveil.lab.export import save
from splitveil.lab.models.loader import load_model
from splitveil.lab.protection import protect
from splitveil.lab.restoring import restore
from splitveil.wire.bundle import Bundle
from splitveil.wire.codecs import CODECS

CARS = "vehicles?n=48&identities=8&size=16"

INTERVALS = ("rank1_interval", "rank5_interval")


def bundle(folder: Path, defense: str) -> Path:
    data = load_data(CARS)
    model = load_model("small", shape=data.shape, classes=len(data.classes), weights=None).model
    halves = split(model, "relu2", torch.zeros(2, *data.shape))
    protected, _ = protect(halves, DEFENSES.build(defense), CODECS.build("raw"), data)
    save(protected, folder, name=folder.name, model_spec="small", image_shape=data.shape, classes=data.classes)
    return folder


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle(tmp_path_factory.mktemp("b") / "noisy", "noise:sigma=3.0")


def test_a_bundle_is_searched_as_deployed_and_without_its_noise(
    noisy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(noisy, CARS, seed=0, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["protected"].keys() == {"map", "rank1", "rank5", "chance", "n_queries", "n_gallery", *INTERVALS}
    assert found["protected"] != found["without_noise"]
    assert found["protected"]["n_queries"] == found["without_noise"]["n_queries"] > 0
    assert 0 < found["protected"]["chance"] < found["protected"]["rank5"] <= 1
    assert found["same_identities"]
    run(noisy, CARS, seed=0, as_json=True)
    assert json.loads(capsys.readouterr().out) == found, "a function of the seed"
    run(noisy, CARS, seed=0, as_json=False)
    shown = capsys.readouterr().out
    assert "without its noise" in shown
    assert f"{found['protected']['n_queries']} queries" in shown


def test_without_noise_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(bundle(tmp_path / "plain", "none"), CARS, seed=0, as_json=True)
    assert json.loads(capsys.readouterr().out)["without_noise"] is None


def test_noiseless_sends_the_features_as_they_are(noisy: Path) -> None:
    protected = restore(Bundle.load(noisy))
    x = torch.from_numpy(load_data(CARS).test.x[:4]).float() / 255
    with torch.no_grad():
        h = protected.split.edge(x)
        assert torch.equal(Noiseless.of(protected).observe(h), protected.defense.mean(h))
        assert not torch.equal(protected.observe(h), protected.observe(h))


def test_other_identities_are_told(noisy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(noisy, f"{CARS}&seed=1", seed=0, as_json=True)
    told = capsys.readouterr()
    assert not json.loads(told.out)["same_identities"]
    assert "other identities" in " ".join(told.err.split())


def test_mistakes_are_explained(noisy: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"takes \(3, 16, 16\) images, got \(1, 8, 8\); add \?size="):
        run(noisy, "digits", seed=0)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (20, 3, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "p.npz", x_train=x, y_train=np.arange(20) % 8, x_test=x[:9], y_test=np.arange(9) % 8)
    with pytest.raises(InputError, match=r"attribute camera, got npz.*; use --data vehicles or reid:PATH"):
        run(noisy, f"npz:{tmp_path / 'p.npz'}", seed=0)
    with pytest.raises(InputError, match="expected the 8 identities that noisy answers with, got 6"):
        run(noisy, "vehicles?n=48&identities=6&size=16", seed=0)


def test_it_is_a_command() -> None:
    from typer.testing import CliRunner

    from splitveil.cli import app

    done = CliRunner().invoke(app, ["retrieve", "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert all(word in done.output for word in ("--data", "--json", "mAP"))
