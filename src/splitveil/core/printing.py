"""Words of others as a terminal or a log may show them."""

ELLIPSIS = "…"


def printable(name: str, most: int = 40) -> str:
    """A name from a file, or what a server says, as a terminal may show it, in at most `most` characters.

    What controls a terminal or turns the text round is escaped; what is longer ends in an ellipsis.
    """
    shown = escaped(name[: most + 1])
    return shown if len(name) <= most and len(shown) <= most else f"{shown[: most - 1]}{ELLIPSIS}"


def escaped(text: str, keep: str = "") -> str:
    """The same without a bound. keep: characters that stay although they print nothing, such as line ends."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)
