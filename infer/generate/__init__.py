"""Generators: a small protocol (`base`) and its backends, each loaded only when it is used."""
