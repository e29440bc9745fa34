"""Names of perturbations, controls and genes as people write them."""
