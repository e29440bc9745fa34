"""Figures and tables of an experiment: quality control, confounding, batches, guide RNAs."""
