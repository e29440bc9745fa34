"""The sections of the report: what each shows, and one or two sentences on how to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from string import Template
from typing import TYPE_CHECKING, Any

import pandas as pd

from cradlevae.evaluation.verdict import verdict
from cradlevae.reporting.webpage.document import Section, own_text
from cradlevae.reporting.webpage.parts import (
    facts_html,
    figure_html,
    findings_html,
    steps_html,
    table_html,
    uses_html,
)
from cradlevae.reporting.webpage.scores import scores_html

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TWINS = {
    "To look at one cell (what would this gene have been?): the twin with its label, clean(adata)": (
        "Its layers['expected'] is the smooth mean of all that is known of the cell, its perturbation included, with "
        "layers['uncertainty']; it must not be mixed with real cells."
    ),
    "To cluster cells, or draw them beside real ones: X of the twin without its label, clean(adata, use_label=False)": (
        "It is decoded from what the cell itself shows, and X holds counts that can stand beside those of real cells. "
        "With labels, clusters by perturbation would only repeat the model."
    ),
    "For effects and differential expression: no twin": (
        "Take model.effects() (the section Effects), or test the real cells that passed quality control."
    ),
}
"""Which twin of a cell serves what."""


@dataclass(frozen=True)
class Content:
    """What a report is about.

    Attributes
    ----------
    scores
        The table of :func:`cradlevae.evaluate`; ``None`` where nothing could be scored.
    unscored
        Why nothing was scored; empty where it was.
    figures
        Figures by title.
    tables
        Tables of the screen by heading.
    steps
        What to do next: sentences and code.
    sample
        Which cells are drawn, a sentence; empty for all.
    data
        What the code of the page reads.
    record
        Facts about model and data.
    """

    scores: pd.DataFrame | None
    unscored: str
    figures: Mapping[str, Figure]
    tables: Mapping[str, pd.DataFrame]
    steps: Sequence[tuple[str, str]]
    sample: str
    data: dict[str, Any]
    record: Mapping[str, Any]


def sections_of(content: Content) -> list[Section]:
    """The sections in their order; those without anything to show are left out."""
    made = [
        _verdict(content), _effects(content), _cells(content), _damage(content), _quality(content), _scores(content),
        _training(content), Section("Technical record", "What was trained on what, so that it can be repeated.",
        facts_html(content.record)),
    ]  # fmt: skip
    return [section for section in made if section.body]


def _verdict(content: Content) -> Section:
    if content.scores is None:
        body = f'<p class="card">{escape(content.unscored)}</p>'
    else:
        body = findings_html(verdict(content.scores))
    reading = "What the scores on held-out cells mean: which predictor serves which question, and what to distrust."
    return Section("Verdict", reading, f"{body}\n<h3>Next steps</h3>\n{steps_html(content.steps)}")


def _effects(content: Content) -> Section:
    stored = content.data["effects"]
    left_out = "" if stored["complete"] else (
        " This page holds the genes of best rank of each perturbation, and for each gene the perturbations in which it "
        "ranks best; cradlevae effects writes all."
    )  # fmt: skip
    body = _own("effects.html", credible=f"{stored['credible']:.0%}", left_out=left_out)
    if content.data.get("map"):
        chosen = content.data["map"]
        body += _own("map.html", n_rows=str(len(chosen["rows"])), n_columns=str(len(chosen["columns"])))
    body += _figures(content, "Predicted against measured effects")
    reading = (
        "Change of each gene's expression by each perturbation, against control cells, artifact-free (log2). Trust the "
        "genes of small lfsr; in the figure of measured effects, good points lie on the diagonal."
    )
    return Section("Effects", reading, body)


def _cells(content: Content) -> Section:
    if not content.data.get("cells"):
        return Section("Cells", "", "")
    reading = (
        "Failed cells as measured (left), and replaced by their twins without their label (right). Good twins lie "
        "among the passing cells, those of their own perturbation first, and form no island of their own. "
        f"{content.sample}"
    )
    plot = _own("cells.html")
    uses = f"<h3>Which twin serves what</h3>\n{uses_html(TWINS)}"
    return Section("Cells", reading, plot + _figures(content, "Cleaned cells") + uses)


def _damage(content: Content) -> Section:
    reading = (
        "What happened to the cells that failed, and what the artifact does to each gene. Kinds that you expect of "
        "your protocol, and genes such as mitochondrial ones among those that rise, speak for the model. "
        f"{content.sample}"
    )
    return Section("Damage", reading, _figures(content, "Damage", "Artifact signature"))


def _quality(content: Content) -> Section:
    reading = (
        "Which cells failed which criterion, and whether perturbations or batches change how often. Flagged "
        "perturbations need care: what looks like an artifact there may be their biology."
    )
    figures = _figures(content, "Quality control", "Confounding alarm", "Batches", "Balance", "Contexts")
    tables = [
        f"<details><summary>{escape(name)}</summary>\n{table_html(table, name, searchable=True)}</details>"
        for name, table in content.tables.items()
    ]
    return Section("Quality control", reading, figures + "\n".join(tables))


def _scores(content: Content) -> Section:
    if content.scores is None:
        return Section("Scores", "", "")
    reading = (
        "How well the model predicts cells that it has not seen. Fraction: 0 is the best floor (a simple predictor), 1 "
        "the ceiling (as well as the held-out cells can tell); below 0, use the floor."
    )
    return Section("Scores", reading, scores_html(content.scores) + _figures(content, "Scores", "Own scores"))


def _training(content: Content) -> Section:
    reading = "The loss by epoch. A good validation loss has become flat before the end; the best epoch was kept."
    return Section("Training", reading, _figures(content, "Training"))


def _figures(content: Content, *titles: str) -> str:
    return "\n".join(figure_html(title, content.figures[title]) for title in titles if title in content.figures)


def _own(name: str, **values: str) -> str:
    return Template(own_text(name)).substitute(values)
