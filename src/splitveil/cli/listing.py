"""``splitveil list``: what there is to choose from."""

from typing import Annotated, Any, Literal

import typer

Kind = Literal["attacks", "defenses", "metrics", "models", "data", "codecs", "recipes", "suites"]


def run(
    kind: Annotated[Kind, typer.Argument(help="what to list")],
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on stdout")] = False,
) -> None:
    """Names that the other commands take, each with one line on what it is."""
    from splitveil.cli.console import print_json, show_table
    from splitveil.core.records import dumps
    from splitveil.core.registry import Registry
    from splitveil.lab.attacks import ATTACKS
    from splitveil.lab.data import DATA
    from splitveil.lab.defenses import DEFENSES
    from splitveil.lab.metrics import METRICS
    from splitveil.lab.models import MODELS
    from splitveil.lab.recipe import RECIPES
    from splitveil.wire.codecs import CODECS

    tables: dict[str, Registry[Any]] = {
        "attacks": ATTACKS,
        "defenses": DEFENSES,
        "metrics": METRICS,
        "models": MODELS,
        "data": DATA,
        "codecs": CODECS,
        "recipes": RECIPES,
    }
    if kind == "suites":
        from splitveil.lab.auditing.suites import SUITES

        rows = [
            (
                s.name,
                f"{s.label}: {s.about}; {', '.join(s.attacks)}; where neither queries nor weights are granted "
                f"{', '.join(s.fallback)}; against random defences {', '.join(s.stochastic)}; at most {s.max_aux:,} "
                "aux images",
            )
            for s in SUITES.values()
        ]
    else:
        rows = tables[kind].describe()
    if as_json:
        print_json(dumps(dict(rows)))
    else:
        show_table("", ["name", ""], rows, left=2)
