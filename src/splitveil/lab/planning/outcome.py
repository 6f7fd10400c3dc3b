"""The records of a finished search: its choices, how well proxies ordered them, and the alternatives."""

import numpy as np

from splitveil.core.records import LEAKAGE, Alternative, Choice, Figure, ProxyCheck
from splitveil.device.profiling import picture_sizes, transmission_seconds
from splitveil.lab.planning.budgets import broken
from splitveil.lab.planning.latency import ANSWER
from splitveil.lab.planning.measuring import COUNTED, Bench
from splitveil.lab.planning.recommendation import Verdict
from splitveil.lab.planning.search import Known, Search
from splitveil.lab.planning.surrogate import rank_check

PICTURES = 200
"""Images whose files are measured."""
FP32 = 4


def choices(search: Search, pruned: list[Known], verdict: Verdict) -> list[Choice]:
    """Recommended first, then the front, then what was measured, estimated and excluded, in this order."""
    expected, front = search.expected(), search.front()
    offered = [k for k in search.known if k.offered]

    def place(k: Known) -> tuple[int, int, str]:
        rung = 0 if k is verdict.chosen else 1 if k.option in front else 2 if k.audited else 3 if k.found else 4
        return rung, k.option.depth, k.option.label

    found = []
    for k in (*sorted(offered, key=place), *sorted(pruned, key=place)):
        figures = k.figures(expected.get(k.option))
        found.append(
            Choice(
                cut=k.option.cut, defense=k.option.defense, codec=k.option.codec, figures=figures,
                broken=broken(figures, search.limits), on_front=k.option in front, card=k.card, note=k.note,
            )
        )  # fmt: skip
    return found


def rank_checks(search: Search, seed: int) -> list[ProxyCheck]:
    """How the linear proxy orders what attacks measured: over cuts, over widths and over everything measured."""
    names = ["ssim", *(name for name in search.limits if name in LEAKAGE and name != "ssim")]
    found = []
    for name in names:
        proxy = {k.option: k.proxy[name] for k in search.known if k.proxy}
        measured = {k.option: k.found[name].value for k in search.known if name in k.found}
        found += [
            rank_check(proxy, measured, names=("linear decoder", name), over=over, seed=seed)
            for over in ("cuts", "widths", "choices")
        ]
    return found


def alternatives(bench: Bench, accuracy: float) -> list[Alternative]:
    """Everything on the device, and the picture itself to the cloud."""
    whole = bench.traced.cuts()[0]
    macs = float(whole.edge_macs + whole.cloud_macs)
    right = Figure(value=accuracy, measured=True, source="test images")
    own = {
        "accuracy": right,
        "edge_macs": Figure(value=macs, measured=True, source=COUNTED),
        "edge_bytes": Figure(
            value=float(FP32 * (whole.edge_params + whole.cloud_params)), measured=True, source="counted parameters"
        ),
        "edge_memory": Figure(value=float(bench.traced.peak_bytes), measured=True, source=COUNTED),
        "payload": Figure(value=0.0, measured=True, source="nothing crosses"),
    }
    way = bench.way
    if way.device is not None:
        seconds = macs / way.device.macs_per_second
        source = f"MACs over the reference speed of {way.device.name}"
        own["latency"] = Figure(value=seconds, measured=False, source=source)
    found = [Alternative(name="device", figures=own, words="Everything on the device: nothing leaks, nothing crosses.")]
    images = np.ascontiguousarray(bench.data.test.x[:PICTURES].transpose(0, 2, 3, 1))
    for size in picture_sizes(images):
        source = f"median file of {size.n} test images"
        figures = {
            "edge_macs": Figure(value=0.0, measured=True, source="the codec of the picture is not counted"),
            "payload": Figure(value=size.median, measured=True, source=source),
        }
        lossless = size.form == "png"
        if lossless:
            figures |= {"accuracy": right, "ssim": Figure(value=1.0, measured=True, source="the image itself")}
        if way.device is not None and way.link is not None:
            server = way.server or way.here
            seconds = transmission_seconds(size.median, way.link, ANSWER * way.classes) + macs / server.macs_per_second
            source = f"model of {way.link.name}, and MACs over the reference speed of {server.name}"
            figures["latency"] = Figure(value=seconds, measured=False, source=source)
        lost = "" if lossless else " Its accuracy was not measured."
        words = f"The picture to the cloud as {size.form}: whoever reads the wire has it.{lost}"
        found.append(Alternative(name=size.form, figures=figures, words=words))
    return found
