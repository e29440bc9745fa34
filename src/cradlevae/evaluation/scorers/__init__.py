"""One scorer for each kind of metric: what is computed, for whom, and the rows that it adds to the table."""
