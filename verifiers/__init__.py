"""What judges a solution: answers and process reward models."""
