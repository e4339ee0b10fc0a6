"""Graders: they find the answer in a solution, and decide whether it is right."""
