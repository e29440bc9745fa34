"""What happened to a failed cell, and what it would look like undamaged: the guide of damage and its objective.

:mod:`.guide` has the network and what follows from its answers, :mod:`.pair_term` the terms of the loss that train it
on counterfactual pairs (:mod:`cradlevae.data.loading.counterfactual_pairs`), and :mod:`.start` what it knows before.
"""
