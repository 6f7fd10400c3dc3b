"""A plan made up for its page: nine cuts, ten choices, two zones; numbers as a ResNet-20 might give them."""

import math
from typing import Any

from splitveil.core.records import Alternative, Budget, Choice, Cut, CutCurve, Figure, Plan, ProxyCheck, Zone
from splitveil.report.quantities import held

CUTS = ("layer1.0", "layer1.1", "layer1.2", "layer2.0", "layer2.1", "layer2.2", "layer3.0", "layer3.1", "layer3.2")
SHAPES = ((16, 32, 32),) * 3 + ((32, 16, 16),) * 3 + ((64, 8, 8),) * 3
ALL_MACS = 40_500_000
FIELDS = (
    # cut, defence, codec, points lost, ssim_worst, channels' share of the payload, measured
    ("layer3.0", "siftfunnel:channels=8", "uniform:bits=8", 1.3, 0.262, 512, True),
    ("layer2.2", "vib:beta=0.01", "uniform:bits=8", 1.9, 0.341, 8192, True),
    ("layer2.0", "noise:sigma=0.5", "uniform:bits=8", 0.9, 0.584, 8192, True),
    ("layer3.2", "none", "uniform:bits=4", 0.2, 0.402, 2048, True),
    ("layer1.0", "none", "raw", 0.0, 0.981, 65536, True),
    ("layer3.1", "siftfunnel:channels=4", "uniform:bits=4", 3.4, 0.181, 128, True),
    ("layer2.2", "siftfunnel:channels=8", "uniform:bits=8", 2.7, 0.288, 2048, False),
    ("layer3.0", "nopeek:weight=2.0", "uniform:bits=8", 1.1, 0.371, 4096, False),
    ("layer1.2", "privynet:channels=6", "uniform:bits=8", 4.2, 0.672, 6144, False),
    ("layer2.1", "noise:sigma=1.0,clip=3", "uniform:bits=8", 2.4, 0.443, 8192, False),
)
LIMITS: dict[str, float] = {"accuracy_drop": 2.0, "payload": 4096, "edge_macs": 36e6, "latency": 0.05}


def curve(index: int) -> CutCurve:
    c, h, w = SHAPES[index]
    size, macs = c * h * w, round(ALL_MACS * (index + 1.2) / 10.3)
    cut = Cut(
        name=CUTS[index], index=index, shape=(c, h, w), bytes_fp32=4 * size, bytes_u8=size, edge_macs=macs,
        cloud_macs=ALL_MACS - macs, edge_params=5000 * (index + 1), cloud_params=270_000 - 5000 * index,
        edge_share=macs / ALL_MACS, edge_peak_bytes=200_000,
    )  # fmt: skip
    deep = 1 / (1 + math.exp(-1.6 * (index - 5.4)))
    rc2 = 0.93 - 0.06 * index - 0.3 * deep
    numbers = {
        "linear_mse": Figure(value=0.002 * 1.5**index + 0.02 * deep, measured=True, source="ridge, held out"),
        "rc2": Figure(value=rc2, measured=True, interval=(rc2 - 0.02, rc2 + 0.02)),
        "within": Figure(value=0.9 - 0.03 * index - 0.35 * deep, measured=True),
        "rank": Figure(value=410 * 0.72**index, measured=True),
        "h_x_z": Figure(value=1900 - 1700 * 0.7**index, measured=index % 3 != 1, source="Gaussian bound"),
        "latency": Figure(value=0.012 + 0.0021 * index, measured=False, source="preset pi5"),
    }
    if index in (5, 6):
        numbers["decoder_mse"] = Figure(value=0.011 if index == 5 else 0.034, measured=True)
    return CutCurve(cut=cut, numbers=numbers)


def choice(k: int, limits: dict[str, float] = LIMITS, most: float = 0.3) -> Choice:
    cut, defense, codec, lost, ssim, payload, measured = FIELDS[k]
    index = CUTS.index(cut)
    source = "" if measured else "linear decoder"
    figures = {
        "accuracy_drop": Figure(
            value=lost, measured=measured, interval=(lost - 0.4, lost + 0.4) if measured else None, source=source
        ),
        "ssim_worst": Figure(
            value=ssim, measured=measured, interval=(ssim - 0.02, ssim + 0.02) if measured else None, source=source
        ),
        "psnr": Figure(value=11 + 18 * ssim, measured=measured, source=source),
        "payload": Figure(value=payload, measured=True),
        "edge_macs": Figure(value=ALL_MACS * (index + 1.2) / 10.3, measured=True, source="counted"),
        "edge_bytes": Figure(value=24_000.0 * (index + 1), measured=True),
        "latency": Figure(value=0.014 + 0.002 * index + payload / 2e6, measured=False, source="preset pi5 over lte"),
    }
    at_most = {**limits, "ssim_worst": most}
    broken = {n: by for n, limit in at_most.items() if (by := held(n, figures[n]) / limit - 1) > 0}
    card = f"cards/{k}/card.json" if measured else ""
    return Choice(
        cut=cut, defense=defense, codec=codec, figures=figures, broken=broken, on_front=k < 6 and k != 1, card=card
    )


def make_plan(*, feasible: bool = True, **more: Any) -> Plan:
    """Ten choices, the first one recommended; where nothing fits, the limit on SSIM is 0.1."""
    most = 0.3 if feasible else 0.1
    zones = [
        Zone(
            first="layer3.0", last="layer3.2", method="rc2", verified=True, edge_share=0.699, gain=3.1,
            words="zone by rc2 from layer3.0 on: falls from 0.53 to 0.35 behind layer2.2; decoders: error x3.1",
        ),
        Zone(first="layer2.2", method="within", verified=None, edge_share=0.6),
        Zone(first=None, method="rank", words="no zone by rank: no lasting drop of 20%"),
    ]  # fmt: skip
    fields: dict[str, Any] = {
        "model": "resnet20", "weights": "cifar10_resnet20.safetensors", "data": "cifar10", "seed": 0,
        "budget": Budget(
            accuracy_drop=2.0, payload=4096, edge_macs=36_000_000, latency=0.05, leakage={"ssim_worst": most}
        ),
        "device": "pi5", "link": "lte", "suite": "standard", "accuracy": 0.921,
        "choices": [choice(k, most=most) for k in range(len(FIELDS))],
        "recommended": 0 if feasible else None,
        "reason": "layer3.0 + siftfunnel:channels=8: the shallowest cut that meets SSIM, worst 5 %, of 0.3; nothing "
        "that was measured and leaks less keeps the accuracy." if feasible else
        "No measured choice reaches SSIM, worst 5 %, of 0.1 within 2 points; the first choice breaks least.",
        "binding": ["ssim_worst"], "nearest": [] if feasible else [0, 5],
        "curves": [curve(k) for k in range(len(CUTS))], "zones": zones,
        "alternatives": [
            Alternative(
                name="everything on the device",
                figures={
                    "accuracy_drop": Figure(value=0.0, measured=True), "payload": Figure(value=0, measured=True),
                    "edge_macs": Figure(value=ALL_MACS, measured=True),
                    "latency": Figure(value=0.034, measured=False, source="preset pi5"),
                },
                words="nothing leaves the device",
            ),
            Alternative(
                name="JPEG to the cloud",
                figures={
                    "accuracy_drop": Figure(value=0.6, measured=True), "payload": Figure(value=1180, measured=True),
                    "ssim_worst": Figure(value=0.93, measured=True), "edge_macs": Figure(value=0, measured=True),
                    "latency": Figure(value=0.061, measured=False, source="preset lte"),
                },
                words="quality 75; the cloud sees the picture",
            ),
        ],
        "checks": [
            ProxyCheck(proxy="linear_mse", leakage="ssim_worst", over="cuts", rho=-0.93, interval=(-1.0, -0.7), n=9),
            ProxyCheck(proxy="linear_mse", leakage="ssim_worst", over="widths", rho=-0.6, interval=(-0.9, 0.1), n=6),
            ProxyCheck(proxy="rc2", leakage="ssim_worst", over="choices", rho=None, n=2),
        ],
        "hardware": "two cores", "seconds": 1130.0, "versions": {"splitveil": "0.1.0"},
        "notes": ["latency is scaled from a preset, not measured on the device"],
    }  # fmt: skip
    return Plan(**(fields | more))
