"""The parts of a search: problems, trees, the ledger, the three protocols, and the runner."""
