"""Sparse attention and ParScale, with their torch references: nothing here yet."""
