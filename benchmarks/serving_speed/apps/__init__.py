"""The cloud half on each peer, as its own manual would have it. Each file runs in that peer's environment alone."""
