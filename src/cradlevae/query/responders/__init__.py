"""Which cells respond to their perturbation: evidence of each cell, and the share of each perturbation."""
