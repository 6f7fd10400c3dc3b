from pathlib import Path

import pytest

from splitveil.core.errors import InputError, UnknownNameError
from splitveil.core.records.device import Device
from splitveil.device.profiling import devices, machine
from splitveil.device.profiling.devices import DEVICES, find_device, measure_here


def test_presets_say_that_nobody_measured_them() -> None:
    assert set(DEVICES) == {"mcu", "pi4", "pi5", "phone", "jetson"}
    for name, found in DEVICES.items():
        assert find_device(name) == found
        assert found.name == name
        assert "not a measurement" in found.source
        assert found.timings == []
    speeds = [d.macs_per_second for d in DEVICES.values()]
    assert speeds == sorted(speeds)
    assert DEVICES["mcu"].storage_bytes == 2_000_000


def test_here_is_measured_now(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measure_here(runs=3)
    assert found.macs_per_second > 1e6
    assert found.source.startswith(f"measured {machine.today()}")
    assert found.hardware == machine.hardware()
    assert found.memory_bytes
    assert found.storage_bytes
    assert {"onnxruntime", "numpy", "python"} <= set(found.versions)
    monkeypatch.setattr(devices, "reference_speed", lambda threads, runs: 1e9 * threads)
    asked = find_device("here", threads=2)
    assert (asked.macs_per_second, asked.threads) == (2e9, 2)


def test_files_round_trip(tmp_path: Path) -> None:
    DEVICES["pi4"].model_copy(update={"name": "kitchen"}).save(tmp_path / "kitchen.json")
    assert find_device(tmp_path / "kitchen.json").name == "kitchen"
    assert find_device(str(tmp_path / "kitchen.json")).macs_per_second == DEVICES["pi4"].macs_per_second


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'phone'"):
        find_device("phon")
    with pytest.raises(InputError, match="cannot read"):
        find_device(tmp_path / "none.json")
    (tmp_path / "card.json").write_text("{}")
    with pytest.raises(InputError, match="not a valid device"):
        find_device(tmp_path / "card.json")
    Device(name="slow", macs_per_second=0, source="by hand").save(tmp_path / "slow.json")
    with pytest.raises(InputError, match=r"gives 0\.0 MACs/s"):
        find_device(tmp_path / "slow.json")


def test_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.hardware().endswith("cores")
    whole = machine.memory_bytes()
    assert whole is not None
    monkeypatch.setattr(machine, "CGROUP", tmp_path / "max")
    (tmp_path / "max").write_text("1000000\n")
    assert machine.memory_bytes() == 1_000_000
    (tmp_path / "max").write_text("max\n")
    assert (machine.memory_bytes() or 0) >= whole
    (tmp_path / "cpuinfo").write_text("processor : 0\n\nModel : Raspberry Pi 5 Model B Rev 1.0\n")
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "cpuinfo")
    assert machine.hardware().startswith("Raspberry Pi 5 Model B Rev 1.0, ")


def test_peak_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t  123456 kB\n")
    with monkeypatch.context() as patch:
        patch.setattr(machine, "STATUS", status)
        assert machine.peak_rss_bytes() == 123456 * 1024
        patch.setattr(machine, "STATUS", tmp_path / "none")
        other = machine.peak_rss_bytes()
    told = machine.peak_rss_bytes()
    assert told is not None
    assert other is not None
    assert 1e6 < told <= 1.2 * other
