"""Figures of data, training, effects, cleaned cells and scores, and the HTML page that holds them."""
