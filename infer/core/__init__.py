"""What a search is made of: problems, trees, the ledger, the three protocols, and the runner."""
