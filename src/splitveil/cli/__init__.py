"""The command line: one file a command. Their top levels import nothing heavy, so that ``--help`` is instant."""

import sys

import typer

from splitveil.cli import (
    audit,
    bundle,
    compare,
    cuts,
    demo,
    fit,
    listing,
    plan,
    profile,
    query,
    report,
    retrieve,
    serve,
)
from splitveil.errors import MissingExtraError, SplitVeilError

app = typer.Typer(
    name="splitveil",
    help="What do the features a device sends reveal, where to cut, what defends it, and how to run both halves.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.run)
app.command("cuts")(cuts.run)
app.command("fit")(fit.run)
app.command("audit")(audit.run)
app.command("compare")(compare.run)
app.command("plan")(plan.run)
app.command("retrieve")(retrieve.run)
app.add_typer(bundle.app, name="bundle")
app.command("serve")(serve.run)
app.command("query")(query.run)
app.command("profile")(profile.run)
app.command("report")(report.run)
app.command("list")(listing.run)


def main() -> None:
    """Run the command line; an error made on purpose is one sentence on stderr and an exit code, never a traceback."""
    try:
        app()
    except SplitVeilError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        print(
            f"error: cannot read or write{where}: {error.strerror or error}; check the path and the disk.",
            file=sys.stderr,
        )
        sys.exit(SplitVeilError.exit_code)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("splitveil"):
            raise
        print(f"error: this command needs {error.name}; pip install 'splitveil[lab]'.", file=sys.stderr)
        sys.exit(MissingExtraError.exit_code)
