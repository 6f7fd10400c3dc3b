"""What a configuration keeps of the task and what it costs the device and the link."""

import torch

from splitveil.core.proportions import wilson
from splitveil.core.records import Cost
from splitveil.device.profiling.links import LINKS, transmission_seconds
from splitveil.lab.accelerator import Accelerator
from splitveil.lab.auditing.criterion.material import Material
from splitveil.lab.cut.costs import FP32_BYTES
from splitveil.lab.metrics.cost import latency
from splitveil.lab.metrics.utility import accuracy, agreement, calibration_error
from splitveil.lab.restoring import Shipped


def costs_of(m: Material) -> list[Cost]:
    """Utility, compute, storage and bytes of one configuration; latency on this machine, one image, torch."""
    protected, cut = m.configuration.protected, m.configuration.cut
    known = m.labels >= 0
    shipped = protected.graph if isinstance(protected, Shipped) else None
    # A processor's, as most devices have: a GPU's would say little of them.
    with Accelerator(torch.device("cpu")).used(protected):
        here = latency(shipped.read if shipped else lambda x: protected.defense(protected.split.edge(x)), m.x[:1].cpu())
    elements = m.z[0].numel()
    payload = protected.codec.payload_bytes(elements)
    right, n = accuracy(m.logits[known], m.labels[known]), int(known.sum())
    found = [
        Cost(name="accuracy", value=right, unit="share", interval=wilson(round(right * n, 3), n)),
        Cost(
            name="agreement", value=agreement(m.logits, m.undefended), unit="share",
            note="with the same halves' answers to features that no defence or codec touched",
        ),
        Cost(
            name="calibration error", value=calibration_error(m.logits[known], m.labels[known]), unit="share",
            note="expected calibration error, 15 bins (Guo et al. 2017)",
        ),
        Cost(name="edge", value=cut.edge_macs, unit="MACs"),
        Cost(name="edge parameters", value=shipped.bytes, unit="bytes", note="edge.onnx with 8-bit weights")
        if shipped
        else Cost(name="edge parameters", value=cut.edge_params * FP32_BYTES, unit="bytes", note="fp32"),
        Cost(name="edge peak memory", value=cut.edge_peak_bytes, unit="bytes", note="activations, fp32, one image"),
        Cost(name="edge latency", value=1e3 * here.median, unit="ms", note=f"median of {here.runs}, on this machine"),
        Cost(name="edge latency, p95", value=1e3 * here.p95, unit="ms"),
        Cost(name="payload", value=8 * payload, unit="bits", note="without protocol headers"),
    ]  # fmt: skip
    return found + [
        Cost(name=f"over {name}", value=1e3 * transmission_seconds(payload, link), unit="ms", note=link.source)
        for name, link in LINKS.items()
    ]
