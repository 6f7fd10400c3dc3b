"""Words of others as a terminal or a log may show them."""

ELLIPSIS = "…"
MOST = 200
"""Characters of a phrase that was not ours."""


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


def phrase(text: str, most: int = MOST) -> str:
    """As `printable`, for a part of a sentence."""
    return printable(text, most)


def listed(phrases: list[str], mark: str = "; ", most: int = 10) -> str:
    """The first of many phrases, and how many more there are."""
    more = f"{mark}and {len(phrases) - most:,} more" if len(phrases) > most else ""
    return mark.join(phrases[:most]) + more
