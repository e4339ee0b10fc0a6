"""What inference costs on paper: FLOPs, bytes, time and money from a model's sizes and a machine's data sheet."""
