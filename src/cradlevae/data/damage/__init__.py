"""Physical damage of cells: what can happen to a cell between the tissue and its counts, as operators on counts.

:mod:`.operators` has the operators with wide, generic priors of their severity, :mod:`.ambient` the pools of ambient
RNA that the failed cells of an experiment show, and :mod:`.copies` damages copies of cells at random.
"""
