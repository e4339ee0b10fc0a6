"""Computes the cost of inference, FLOPs, bytes, time and money, from a model's sizes and a device's data sheet."""
