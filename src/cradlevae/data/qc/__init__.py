"""Quality control: criteria, thresholds, doublets, and the confounding alarm."""
