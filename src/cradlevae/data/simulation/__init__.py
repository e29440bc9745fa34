"""Simulated experiments, planted artifacts, and the truth that travels with them."""
