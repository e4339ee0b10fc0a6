"""Graders: they take the answer from a solution, and say whether it is right."""
