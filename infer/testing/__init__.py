"""Laws that every strategy, generator and verifier keeps: run them on your own."""
