"""Networks and likelihoods: no biology."""
