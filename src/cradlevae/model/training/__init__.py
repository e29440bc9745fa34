"""Fitting a model: Lightning's module and trainer, processes, checkpoints, and what is estimated when training ends."""
