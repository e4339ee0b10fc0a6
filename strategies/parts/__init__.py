"""Pieces that several strategies share, or that stand apart from their algorithm."""
