"""Split manifests: which cell is for training, validation or test, by which recipe, with a hash.

Recipes (evaluation protocol of the paper, made reproducible):

- ``combinations``: singles and controls always in train and validation, a quarter of the combinations unseen; first
  those whose single perturbations all have training cells, for the others cannot be predicted.
- ``combinations_published``: the same as published, a random quarter, whatever the single perturbations.
- ``cells``: 64/16/20 by cell, within each condition.
- ``perturbations``: whole conditions held out; ``n_shared`` single perturbations of each are seen in training.
- ``column``: the parts that a column of ``obs`` names.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cradlevae.data.cell_sketch import CellSketch, SketchArray, same_cells, sketch_of
from cradlevae.data.experiment import DataFields, Experiment, check_unique, condition_labels
from cradlevae.data.fields import fields_of
from cradlevae.data.labels import CONTROL, closest, listed, singles_of
from cradlevae.data.marks import warn_if_made
from cradlevae.errors import DataError
from cradlevae.utils.atomic import write_text
from cradlevae.utils.checks import check_anndata, flag, output_file, path_of, seed_number, shown, text, whole_number
from cradlevae.utils.outputs import check_output
from cradlevae.utils.types import AnnDataLike, BoolArray, IndexArray

PARTS = ("train", "val", "test")
UNUSED = "unused"
"""Part of cells that neither train nor score a model, e.g. of a held-out perturbation outside the test set."""

VALIDATION_SHARE = 0.2
"""Share of the cells of trainable conditions that validate."""

TEST_SHARE = 0.2
"""Share of all cells that the ``cells`` recipe holds out."""


@dataclass(frozen=True, eq=False)
class Split:
    """The part of the split that every cell belongs to, and the recipe that assigned it.

    :func:`cradlevae.split` returns splits; :meth:`save` and :meth:`load` write and read them as JSON. Two splits are
    equal if their hashes are.

    Attributes
    ----------
    parts
        ``train``, ``val``, ``test`` or ``unused`` for each cell, with the cell names as the index, (cells,).
    recipe
        Name of the recipe.
    seed
        Seed of the recipe.
    options
        Other settings of the recipe.
    notes
        What there is to know of this split; they do not belong to its identity.
    sketch
        Sketches of the cells' counts (:mod:`cradlevae.data.cell_sketch`), a row for each of ``parts``, by which another
        cell of the same name is recognised; ``None`` where cells are known by their names alone.

    Raises
    ------
    DataError
        By :meth:`load`, if the file is not a manifest or was changed.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=100, n_genes=30, n_perturbations=3, n_combinations=2)
    >>> split = cv.split(adata, "cells", seed=0)
    >>> path = Path(tempfile.mkdtemp()) / "split.json"
    >>> split.save(path)
    >>> cv.Split.load(path).hash == split.hash
    True
    """

    parts: pd.Series[str]
    recipe: str
    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sketch: CellSketch | None = field(default=None, compare=False, repr=False)

    @property
    def probes(self) -> tuple[str, ...]:
        """Genes by which the cells are sketched."""
        return () if self.sketch is None else self.sketch.genes

    def cells(self, part: str) -> pd.Index[str]:
        """Return the names of the cells of one part, in the order of the data."""
        return self.parts.index[(self.parts == part).to_numpy()]

    def rows(self, cells: Experiment | pd.Index[str], part: str) -> IndexArray:
        """Return the positions of the cells of one part, ascending.

        Parameters
        ----------
        cells
            An experiment, whose cells are compared by name and counts, or names alone.
        part
            Name of the part.
        """
        if isinstance(cells, Experiment):
            return np.flatnonzero(self.parts_of(cells) == part)
        return np.flatnonzero((self.parts.reindex(cells) == part).to_numpy())

    def parts_of(self, data: Experiment) -> npt.NDArray[np.object_]:
        """Return the part of each cell of an experiment, by name and counts; ``""`` for a cell that is not known."""
        place = self.parts.index.get_indexer(data.cells)
        parts = np.where(place >= 0, self.parts.to_numpy(dtype=object)[place], "")
        parts[self.namesakes(data)] = ""
        return parts

    def namesakes(self, data: Experiment) -> BoolArray:
        """Whether each cell of an experiment has the name of a cell of the split, but other counts, (cells,)."""
        if self.sketch is None:
            return np.zeros(data.n_cells, dtype=bool)
        return self.other_cells(data.cells, data.genes, data.sketch(self.sketch.genes))

    def other_cells(self, cells: pd.Index[str], genes: pd.Index[str], values: SketchArray) -> BoolArray:
        """Whether each cell has the name of a cell of the split, but another sketch, (cells,).

        Parameters
        ----------
        cells, genes
            Names of the cells and of the genes of the data.
        values
            Sketches of the cells by the probe genes of this split, (cells, probes).
        """
        assert self.sketch is not None
        place = self.parts.index.get_indexer(cells)
        shared = self.sketch.shared(genes)
        comparable = np.flatnonzero((place >= 0) & self.sketch.known[place])
        other = np.zeros(len(cells), dtype=bool)
        if len(shared):
            recorded = self.sketch.values[place[comparable]][:, shared]
            other[comparable] = ~same_cells(recorded, values[comparable][:, shared])
        return other

    @cached_property
    def hash(self) -> str:
        """SHA-256 over recipe, seed, options and the part of every cell, whatever the order of the cells."""
        digest = hashlib.sha256(json.dumps([self.recipe, self.seed, self.options], sort_keys=True).encode())
        ordered = self.parts.sort_index()
        for start in range(0, len(ordered), 10_000):
            lines = (f"\n{cell}\t{part}" for cell, part in ordered.iloc[start : start + 10_000].items())
            digest.update("".join(lines).encode())
        return digest.hexdigest()

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the manifest as JSON, atomically.

        Parameters
        ----------
        path
            File to write.
        overwrite
            Whether to replace a file that is there.

        Raises
        ------
        DataError
            If the file is there already and ``overwrite`` is not set, or cannot be written.
        """
        path = output_file("path", path)
        check_output(path, overwrite=flag("overwrite", overwrite))
        by_part = {part: list(self.cells(part)) for part in (*PARTS, UNUSED)}
        manifest = {
            "recipe": self.recipe,
            "seed": self.seed,
            "options": self.options,
            "hash": self.hash,
            "notes": list(self.notes),
            "cells": by_part,
        }
        if self.sketch is not None:
            order = [np.flatnonzero((self.parts == part).to_numpy()) for part in by_part]
            manifest["sketch"] = self.sketch.as_plain(np.concatenate(order))
        write_text(path, json.dumps(manifest, indent=1))

    @classmethod
    def load(cls, path: str | Path) -> Split:
        """Read a manifest written by :meth:`save`.

        Raises
        ------
        DataError
            If the file is not a manifest, or its hash does not fit its content.
        """
        path = path_of("path", path)
        try:
            manifest = json.loads(path.read_text())
            parts = pd.Series({cell: part for part, cells in manifest["cells"].items() for cell in cells}, dtype=object)
            sketch = CellSketch.of_plain(manifest["sketch"], len(parts)) if "sketch" in manifest else None
            notes = tuple(manifest.get("notes", ()))
            split = cls(parts, manifest["recipe"], manifest["seed"], manifest["options"], notes, sketch)
            recorded = manifest["hash"]
        except FileNotFoundError:
            raise DataError(f"no split manifest at {path}") from None
        except OSError as error:
            raise DataError(f"cannot read the split manifest {path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is not a split manifest ({error}); write one with `cradlevae split`") from None
        if split.hash != recorded:
            raise DataError(f"{path} was changed after it was written: its hash does not fit its cells")
        return split

    def __eq__(self, other: object) -> bool:
        return self.hash == other.hash if isinstance(other, Split) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        sizes = ", ".join(
            f"{part} {n:,}" for part in (*PARTS, UNUSED) if (n := len(self.cells(part))) or part != UNUSED
        )
        return f"Split({self.recipe!r}, seed={self.seed}, {sizes}, hash {self.hash[:12]})"


def check_is_split(split: Any) -> None:
    """Raise :class:`DataError` where something else than a split is given."""
    if not isinstance(split, Split):
        recipe = split if isinstance(split, str) and split in RECIPES else "cells"
        raise DataError(
            f"split is {shown(split)}; it must be a cradlevae.Split: make one with cradlevae.split(adata, {recipe!r}), "
            "or read a manifest with cradlevae.Split.load(path)"
        )


def split(
    adata: AnnDataLike,
    recipe: str = "cells",
    *,
    seed: int = 0,
    n_shared: int = 0,
    column: str | None = None,
    fields: DataFields | None = None,
    **field_options: Any,
) -> Split:
    """Assign every cell to train, validation or test.

    Parameters
    ----------
    adata
        AnnData, or cells on disk, with perturbation labels.
    recipe
        ``"combinations"``, ``"combinations_published"``, ``"cells"``, ``"perturbations"`` or ``"column"``.
    seed
        Seed of the recipe.
    n_shared
        For ``perturbations``: number of single perturbations of a held-out condition that are seen in training (0, 1
        or 2).
    column
        For ``column``: the ``obs`` column that holds ``train``, ``val`` and ``test``.
    fields
        Where the labels are (see :class:`DataFields`).
    **field_options
        Single fields, e.g. ``perturbation_key="gene"``, instead of ``fields`` or in addition.

    Returns
    -------
    Split
        The part of every cell; ``split.save(path)`` writes it as a manifest.

    Raises
    ------
    DataError
        If the recipe is unknown, an argument means nothing for it or contradicts ``fields``, or the data cannot be
        split by it.

    Warns
    -----
    UserWarning
        Where ``combinations`` holds out combinations with a single perturbation that has no training cells.

    Examples
    --------
    >>> import cradlevae as cv
    >>> adata = cv.simulate(n_cells=200, n_genes=30, n_perturbations=4, n_combinations=4)
    >>> split = cv.split(adata, "combinations", seed=0)
    >>> list(adata.obs.loc[split.cells("test"), "perturbation"].unique())
    ['B+D']
    """
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise DataError(f"unknown split recipe {recipe!r}{closest(str(recipe), list(RECIPES))}")
    seed = seed_number(seed)
    n_shared = whole_number("n_shared", n_shared)
    fields = fields_of(fields, field_options)
    check_anndata(adata)
    check_unique(adata.obs_names, "cell", "adata.obs_names_make_unique()")
    _check_meaningful(recipe, seed, n_shared, column)
    warn_if_made(adata, "split")
    if recipe == "column":
        assigned = _by_column(adata, column)
    else:
        assigned = _by_recipe(condition_labels(adata, fields), recipe, seed, n_shared)
    return replace(assigned, sketch=sketch_of(adata, fields.layer))


def _by_recipe(labels: pd.Series[str], recipe: str, seed: int, n_shared: int) -> Split:
    generator = np.random.default_rng(seed)
    if recipe == "perturbations":
        parts = _perturbations(labels, generator, n_shared)
        return Split(parts, recipe, seed, {"n_shared": n_shared})
    if recipe == "combinations":
        return _combinations(labels, generator, seed)
    return Split(RECIPES[recipe](labels, generator), recipe, seed)


def _check_meaningful(recipe: str, seed: int, n_shared: int, column: str | None) -> None:
    """Raise :class:`DataError` for an argument that means nothing for a recipe."""
    if n_shared and recipe != "perturbations":
        raise DataError(f"the recipe {recipe!r} has no n_shared; leave it out, or use the recipe 'perturbations'")
    if column is not None and recipe != "column":
        raise DataError(f"the recipe {recipe!r} reads no column; leave column= out, or use the recipe 'column'")
    if seed and recipe == "column":
        raise DataError("the recipe 'column' draws nothing at random; leave seed out")


def _combinations(labels: pd.Series[str], generator: np.random.Generator, seed: int) -> Split:
    """Hold out a quarter of the combinations, those that a model can answer for first.

    Where all of the random quarter can be answered, it is that of the published recipe.
    """
    published, shuffled = _quarter_of_combinations(labels, generator)
    present = sorted(set(labels.unique()) - {CONTROL, ""})
    held_out, unanswerable = _answerable_first(shuffled[::-1], present, len(published))
    notes = []
    if set(held_out) != published:
        notes.append(
            f"combinations whose single perturbations all have training cells are held out first: "
            f"{listed(sorted(set(held_out) - published))} in place of {listed(sorted(published - set(held_out)))}"
        )
    if unanswerable:
        notes.append(
            f"{len(unanswerable)} of {len(held_out)} held-out combinations have a single perturbation without training "
            f"cells, so most models cannot predict them: {listed(sorted(unanswerable))}"
        )
        warnings.warn(notes[-1], stacklevel=3)
    return Split(_held_out(labels, set(held_out), set(), generator), "combinations", seed, {}, tuple(notes))


def _answerable_first(
    combinations: Sequence[str], conditions: Sequence[str], n_held_out: int
) -> tuple[list[str], list[str]]:
    """Choose combinations in this order, those first whose single perturbations stay in other conditions.

    Returns
    -------
    held_out
        The combinations that are chosen.
    unanswerable
        Those of them with a single perturbation that no other condition is left to train on.
    """
    left = Counter(single for name in conditions for single in singles_of(name))
    needed: set[str] = set()
    """Single perturbations of the combinations that are held out."""
    held_out: list[str] = []
    for name in combinations:
        singles = singles_of(name)
        if len(held_out) < n_held_out and all(left[single] > 1 for single in singles):
            left.subtract(singles)
            needed.update(singles)
            held_out.append(name)
    others = [name for name in combinations if name not in held_out]
    # A filler must not take the last training cells of what the chosen ones need.
    harmless = [name for name in others if not needed.intersection(singles_of(name))]
    fillers = [*harmless, *(name for name in others if name not in harmless)][: n_held_out - len(held_out)]
    for name in fillers:
        left.subtract(singles_of(name))
    held_out += fillers
    return held_out, [name for name in held_out if any(left[single] < 1 for single in singles_of(name))]


def _published_combinations(labels: pd.Series[str], generator: np.random.Generator) -> pd.Series[str]:
    return _held_out(labels, _quarter_of_combinations(labels, generator)[0], set(), generator)


def _quarter_of_combinations(labels: pd.Series[str], generator: np.random.Generator) -> tuple[set[str], list[str]]:
    """Return a random quarter of the combinations, and the random order of all, whose end the quarter is."""
    names = sorted(name for name in labels.unique() if len(singles_of(name)) > 1)
    if not names:
        raise DataError(
            "this recipe needs combinations (labels such as A+B), but there are none; "
            "use recipe 'cells', or set separator= to what stands between the perturbations"
        )
    return _last_quarter(names, generator)


def _last_quarter(names: list[str], generator: np.random.Generator) -> tuple[set[str], list[str]]:
    shuffled = list(generator.permutation(np.array(names, dtype=object)))
    return set(shuffled[-int(np.ceil(0.25 * len(names))) :]), shuffled


def _perturbations(labels: pd.Series[str], generator: np.random.Generator, n_shared: int) -> pd.Series[str]:
    """Hold out the conditions with a quarter of the single perturbations (for ``n_shared=2``: of the combinations).

    Of the conditions that this concerns, those with exactly ``n_shared`` single perturbations in the training
    conditions are the test part; the others are unused.
    """
    if n_shared not in (0, 1, 2):
        raise DataError(f"n_shared is {n_shared!r}; it must be 0, 1 or 2")
    conditions = sorted(set(labels.unique()) - {CONTROL, ""})
    if n_shared == 2:
        touched, _ = _quarter_of_combinations(labels, generator)
    else:
        singles = sorted({single for name in conditions for single in singles_of(name)})
        hidden, _ = _last_quarter(singles, generator)
        touched = {name for name in conditions if not hidden.isdisjoint(singles_of(name))}
    seen = {single for name in conditions if name not in touched for single in singles_of(name)}
    test = {name for name in touched if sum(single in seen for single in singles_of(name)) == n_shared}
    if not test:
        raise DataError(
            f"no condition has exactly {n_shared} perturbations seen in training; use another n_shared or seed"
        )
    return _held_out(labels, test, touched - test, generator)


def _held_out(
    labels: pd.Series[str], test: set[str], unused: set[str], generator: np.random.Generator
) -> pd.Series[str]:
    """Put whole conditions into the test or unused part, and the cells of all others into train and validation."""
    parts = _within_conditions(labels, generator, {"val": VALIDATION_SHARE})
    parts[labels.isin(test).to_numpy()] = "test"
    parts[(labels.isin(unused) | (labels == "")).to_numpy()] = UNUSED
    return parts


def _cells(labels: pd.Series[str], generator: np.random.Generator) -> pd.Series[str]:
    shares = {"test": TEST_SHARE, "val": VALIDATION_SHARE * (1 - TEST_SHARE)}
    parts = _within_conditions(labels, generator, shares)
    parts[(labels == "").to_numpy()] = UNUSED
    return parts


def _within_conditions(
    labels: pd.Series[str], generator: np.random.Generator, shares: dict[str, float]
) -> pd.Series[str]:
    """Assign random parts within each condition, so that every condition has training cells."""
    parts = np.full(len(labels), "train", dtype=object)
    codes, names = pd.factorize(labels, sort=True)
    in_order = np.argsort(codes, kind="stable")
    for rows in np.split(in_order, np.cumsum(np.bincount(codes, minlength=len(names)))[:-1]):
        rows = generator.permutation(rows)
        start = 0
        for part, share in shares.items():
            stop = start + round(share * len(rows))
            parts[rows[start:stop]] = part
            start = stop
    return pd.Series(parts, index=labels.index, dtype=object)


def _by_column(adata: AnnDataLike, column: str | None) -> Split:
    if column is None:
        raise DataError("the recipe 'column' needs column=, the obs column that holds train, val and test")
    if text("column", column) not in adata.obs:
        raise DataError(f"no column {column!r} in obs{closest(column, list(adata.obs.columns))}")
    names = {"validation": "val", "valid": "val"}
    parts = adata.obs[column].astype(str).map(lambda value: names.get(value, value))
    unknown = set(parts) - {*PARTS, UNUSED}
    if unknown:
        raise DataError(
            f"obs[{column!r}] holds {sorted(unknown)[0]!r}; the parts are train, val, test and (left out) unused"
        )
    if not (parts == "train").any():
        raise DataError(f"obs[{column!r}] names no cell 'train'")
    return Split(pd.Series(parts.to_numpy(), index=adata.obs_names, dtype=object), "column", 0, {"column": column})


RECIPES: dict[str, Callable[[pd.Series[str], np.random.Generator], pd.Series[str]]] = {
    "combinations": _published_combinations,
    "combinations_published": _published_combinations,
    "cells": _cells,
    "perturbations": lambda labels, generator: _perturbations(labels, generator, 0),
    "column": lambda labels, generator: labels,
}
"""Split recipes by name."""
