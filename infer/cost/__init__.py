"""The cost of inference on paper: FLOPs, bytes, time and money from a model's sizes and a machine's data sheet."""
