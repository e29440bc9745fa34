"""Rows of generated cells beside real ones: differentially expressed genes, and distances to real cells."""

from __future__ import annotations

from cradlevae.evaluation.inputs import ScoringInputs
from cradlevae.evaluation.matched_cells import CellPair, generate_alike
from cradlevae.evaluation.metrics.de import DETest, rank_sum_tests
from cradlevae.evaluation.metrics.pca_space import fit_space
from cradlevae.evaluation.metrics.registry import metrics_of
from cradlevae.evaluation.predictor import symbols_of_genes
from cradlevae.evaluation.score_table import MODEL, Scores
from cradlevae.evaluation.scorers.cells import score_cells
from cradlevae.evaluation.scorers.count_groups import count_groups, own_columns


def score_generated(scores: Scores, inputs: ScoringInputs) -> None:
    """Generate cells like the passing reference cells and add the rows that compare them, where there are enough."""
    data = inputs.data
    pair = generate_alike(inputs.predictor, data, inputs.passing, inputs.generated_conditions, seed=inputs.seed)
    if pair is None:
        return
    score_de(scores, pair)
    score_counts(scores, inputs, pair)
    train = inputs.training_rows
    space = fit_space(data.counts, train[~data.failed[train]], seed=inputs.seed)
    score_cells(scores, pair, space, seed=inputs.seed)


def score_de(scores: Scores, pair: CellPair) -> None:
    """Add the rows of metrics of kind ``"de"``: differential expression in generated and in real cells."""
    real, generated = de_tests(pair)
    for entry in metrics_of("de"):
        scores.add(scores.label("passing cells"), entry.name, MODEL, entry.value(real, generated), note=entry.note)


def score_counts(scores: Scores, inputs: ScoringInputs, pair: CellPair) -> None:
    """Add the rows of metrics of kind ``"counts"``: those of the Virtual Cell Challenge, which compare raw counts."""
    genes = [str(gene) for gene in inputs.predictor.genes]
    own = own_columns(pair.names[1:], genes, symbols_of_genes(inputs.predictor))
    real, predicted = count_groups(pair, genes, own)
    for entry in metrics_of("counts"):
        scores.add(scores.label("passing cells"), entry.name, MODEL, entry.value(real, predicted), note=entry.note)


def de_tests(pair: CellPair) -> tuple[DETest, DETest]:
    """Rank-sum tests in real cells, and in as many generated cells of each condition; both within batch and context."""
    real = rank_sum_tests(pair.real, pair.real_codes, pair.names, strata=pair.real_strata)
    matched = pair.matched()
    groups = pair.generated_groups[matched]
    return real, rank_sum_tests(pair.generated[matched], pair.generated_codes[matched], pair.names, strata=groups)
