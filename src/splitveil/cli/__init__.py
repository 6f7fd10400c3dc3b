"""The command line: one file a command. Their top levels import nothing heavy, so that ``--help`` is instant."""

import os
import sys
from typing import Annotated

import typer

from splitveil import __version__
from splitveil.cli import (
    audit,
    bundle,
    check,
    compare,
    cuts,
    demo,
    fit,
    interruption,
    listing,
    plan,
    profile,
    query,
    report,
    retrieve,
    serve,
    streams,
)
from splitveil.core.errors import InputError, MissingExtraError, SplitVeilError
from splitveil.core.printing import escaped

WRONG_PATHS = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
"""A path that the user gave cannot be that; anything else, such as a full disk, is nobody's mistake."""

LONGEST = 20_000
"""Characters of an error that are shown."""

app = typer.Typer(
    name="splitveil",
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
app.command("check")(check.run)
app.command("serve")(serve.run)
app.command("query")(query.run)
app.command("profile")(profile.run)
app.command("report")(report.run)
app.command("list")(listing.run)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"splitveil {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """What do the features a device sends reveal, where to cut, what defends it, and how to run both halves."""


def main() -> None:
    """Run the command line; an error made on purpose is one sentence on stderr and an exit code, never a traceback.

    Exit codes: 2 for what the user gave, 130 for Ctrl-C; the rest hangs on `splitveil.core.errors` and on the commands.
    """
    streams.mend_streams()
    # gRPC's own log lines would stand between ours; whoever debugs it sets the variable.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    words = sys.argv[1:]
    if "--json" in words:
        streams.keep_for_json()
    interruption.listen(words)
    code = _code(words)
    try:
        sys.stdout.flush()
    except OSError as error:
        _say_unwritten(error)
        code = code or SplitVeilError.exit_code
    sys.exit(code)


def _code(words: list[str]) -> int | str | None:
    """Run the command; its exit code."""
    if strange := next((word for word in words if not _is_text(word)), None):
        # No card and no bundle could hold such a name, which would show when everything else is done.
        print(
            f"error: expected words in UTF-8, got {os.fsencode(strange)!r}; rename that file or folder.",
            file=sys.stderr,
        )
        return InputError.exit_code
    try:
        app()
    except SystemExit as done:
        if done.code != interruption.INTERRUPTED:
            return done.code
        interruption.say_parting(words)
        return interruption.exit_code()
    except KeyboardInterrupt:
        interruption.say_parting(words)
        return interruption.exit_code()
    except SplitVeilError as error:
        said = "\n".join([f"error: {error}", *getattr(error, "__notes__", ())])
        # A message may quote what a file or a server says, and that must not write to a terminal as it likes.
        print(escaped(said[:LONGEST], keep="\n"), file=sys.stderr)
        return error.exit_code
    except OSError as error:
        _say_unwritten(error)
        return InputError.exit_code if isinstance(error, WRONG_PATHS) else SplitVeilError.exit_code
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("splitveil"):
            raise
        print(f"error: this command needs {error.name}; pip install 'splitveil[lab]'.", file=sys.stderr)
        return MissingExtraError.exit_code
    return 0


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _say_unwritten(error: OSError) -> None:
    where = f" {error.filename}" if error.filename else ""
    print(
        f"error: cannot read or write{where}: {error.strerror or error}; check the path and the disk.", file=sys.stderr
    )
