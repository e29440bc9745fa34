"""Figures of what a model answers: effects, expression, interactions, responding cells."""
