"""Passes that turn a supernet's graph into a plain network: each a function on a `Graph`, exact by test."""
