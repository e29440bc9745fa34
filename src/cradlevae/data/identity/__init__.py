"""Which cells these are: what tells a cell, or what became of it, from another of the same name."""
