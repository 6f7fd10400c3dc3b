from splitveil.core.records import Cut
from splitveil.lab.planning.proposals import proposed, taken
from splitveil.lab.planning.search import Known, preference
from splitveil.lab.planning.space import Space

from .fakes import counted, known, measured, option, search_of


def cut(index: int) -> Cut:
    return Cut(
        name=f"cut{index}", index=index, shape=(8, 4, 4), bytes_fp32=512, bytes_u8=128, edge_macs=10, cloud_macs=10,
        edge_params=1, cloud_params=1, edge_share=0.5, edge_peak_bytes=512,
    )  # fmt: skip


def test_only_what_has_a_proxy_is_measured_and_each_once() -> None:
    options = [known(option(d), proxy=d / 10) for d in range(4)]
    options[3].proxy = {}
    seen: list[int] = []

    def measure(k: Known) -> None:
        seen.append(k.option.depth)
        k.found = measured(0.9, k.proxy["ssim"])

    search = search_of(options, {})
    assert search.run(measure, lambda: True, 9)
    assert sorted(seen) == [0, 1, 2]
    assert search.next() is None


def test_it_stops_when_time_is_over_and_says_so() -> None:
    search = search_of([known(option(d)) for d in range(4)], {})
    assert not search.run(lambda _: None, lambda: False, 2)


def test_what_breaks_no_limit_by_its_proxy_comes_first() -> None:
    good = known(option(2), proxy=0.2)
    search = search_of([known(option(0), proxy=0.9), known(option(1), proxy=0.8), good], {"ssim": 0.3})
    assert search.next() is good


def test_estimates_are_no_measurements_and_learn_from_them() -> None:
    ks = [known(option(d), proxy=d / 10) for d in range(6)]
    search = search_of(ks, {})
    before = search.expected()[ks[5].option]
    assert (before["ssim"].value, before["ssim"].measured, before["ssim"].source) == (0.5, False, "linear proxy")
    for k in ks[:4]:
        k.found = measured(0.8, 0.3 + k.proxy["ssim"])
    after = search.expected()[ks[5].option]
    assert 0.7 < after["ssim"].value < 0.9
    assert after["accuracy_drop"].value > 15
    assert "4 measured" in after["ssim"].source
    assert ks[0].figures(after)["ssim"].measured


def test_the_front_compares_what_the_same_attacks_measured() -> None:
    ks = [known(option(d)) for d in range(3)]
    for k, (accuracy, ssim) in zip(ks, [(0.9, 0.5), (0.95, 0.3), (0.8, 0.6)], strict=True):
        k.found = measured(accuracy, ssim)
    search = search_of(ks, {})
    assert search.front() == {ks[0].option, ks[1].option}, "the first one costs the device least"
    ks[1].fresh = measured(0.5, 0.9)
    assert search.front() == {ks[0].option, ks[1].option}


def test_preference_is_the_least_work_with_a_leakage_limit_and_the_least_leakage_without() -> None:
    shallow = {**counted({"edge_macs": 10, "payload": 9}), **measured(0.9, 0.29)}
    deep = {**counted({"edge_macs": 1000, "payload": 9}), **measured(0.99, 0.1)}
    key = {"ssim": 0.3}
    assert preference(shallow, key, "ssim") < preference(deep, key, "ssim")
    assert preference(deep, {"payload": 10.0}, "ssim") < preference(shallow, {"payload": 10.0}, "ssim")


def test_optuna_proposes_within_the_space_until_time_is_over_and_repeats_itself() -> None:
    space = Space.of([cut(0), cut(1)], ["none", "noise"], ["raw"])

    def proposals(most: int, stop: int) -> list[str]:
        seen: list[str] = []

        def judge(o: object) -> tuple[float, float, float] | None:
            label = o.label  # type: ignore[attr-defined]
            seen.append(label)
            return None if len(seen) == 2 else (0.5, len(seen) / 10, 0.0)

        assert proposed(space, judge, lambda: len(seen) < stop, most, 3) == min(most, stop)
        return seen

    first = proposals(12, 99)
    assert len(first) == 12
    assert {label.split(" | ")[0] for label in first} == {"cut0", "cut1"}
    assert proposals(12, 99) == first
    assert len(proposals(12, 5)) == 5


def test_undefended_options_are_looked_at_first() -> None:
    space = Space.of([cut(0), cut(1)], ["noise", "none"], ["raw"])
    grid = space.grid()
    order = taken(grid, 0)
    assert [o.family for o in order[:2]] == ["none", "none"]
    assert set(order) == set(grid)
    assert order == taken(grid, 0) != taken(grid, 1)
