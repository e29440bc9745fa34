"""Parts of figures: how notebooks show them, and lists of values with intervals."""
