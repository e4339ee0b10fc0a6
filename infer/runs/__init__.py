"""From the name of a model to a finished run on disk."""
