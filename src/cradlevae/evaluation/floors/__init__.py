"""Floors: what a line of algebra predicts, as functions and in the form of models."""
