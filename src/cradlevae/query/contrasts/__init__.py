"""Conditions beside each other: differences, interactions of pairs, and a gene in all of them."""
