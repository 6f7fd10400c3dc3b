"""Rendered vehicles: cars of known identity, from several sides, by several cameras, with plates that can be read."""
