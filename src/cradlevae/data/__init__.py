"""Counts in: the data contract, quality control, splits, batches, the simulator."""
