from splitveil.core.records import Figure
from splitveil.report.quantities import excess_text, figure_line, ordered, plain, span_text


def test_numbers() -> None:
    assert [plain(v) for v in (0.01234, -12.34, 1130.4, 2e7)] == ["0.0123", "\N{MINUS SIGN}12.3", "1,130", "2.00e+07"]
    assert span_text("accuracy_drop", (0.9, 1.7)) == "0.90 to 1.70 points"
    assert span_text("payload", (900, 2048)) == "900 B to 2.0 KiB"
    assert [excess_text(v) for v in (0.004, 0.24, 15.0)] == ["0.4 % over", "24 % over", "16 times the limit"]
    assert ordered(["odd", "payload", "accuracy", "odd"]) == ["accuracy", "payload", "odd"]
    line = figure_line("latency", Figure(value=0.0263, measured=False, interval=(0.02, 0.03), source="preset"))
    assert line == "latency \N{ALMOST EQUAL TO} 26.3 ms (20 to 30 ms), estimated: preset"
