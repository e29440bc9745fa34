"""From cells to minibatches: shuffling, reading ahead, padding, counterfactual references, cells on a device."""
