"""Scorers: one for each kind of metric.

A scorer computes what metrics of its kind are given, calls every registered metric of that kind, and adds the rows to
the table of scores.

==============  ==========================
kind            scorer
==============  ==========================
effect          ``effects.score_effects``
response        ``effects.score_effects``
counts          ``generated.score_counts``
calibration     ``calibration.score_calibration``
qc              ``qc.score_qc``
de              ``generated.score_de``
cells           ``cells.score_cells``
likelihood      ``latents.score_likelihood``
leakage         ``latents.score_leakage``
mask            ``simulated.score_mask``
signature       ``simulated.score_signature``
clean           ``clean.score_clean``
mixing          ``mixing.score_mixing``
==============  ==========================
"""
