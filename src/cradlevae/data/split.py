"""Split manifests: which cell is for training, validation or test, by which recipe, with a hash.

Recipes (evaluation protocol of the paper, made reproducible):

- ``combinations``: singles and controls always in train and validation, a quarter of the combinations unseen; first
  those whose single perturbations all have training cells, for the others cannot be predicted.
- ``combinations_published``: the same as published, a random quarter, whatever the single perturbations.
- ``cells``: 64/16/20 by cell, within each condition.
- ``perturbations``: whole conditions held out; ``n_shared`` single perturbations of each are seen in training.
- ``contexts``: perturbations held out in single contexts (cell line, donor), and seen in the others.
- ``column``: the parts that a column of ``obs`` names.

Where the fields name batches, covariates or contexts, each part gets its share of every condition in each of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cradlevae.data.experiment import DataFields, Experiment, check_unique, condition_labels
from cradlevae.data.factors import read_factors, strata_codes
from cradlevae.data.fields import fields_of
from cradlevae.data.held_out import canonical_pairs, held_out_pairs
from cradlevae.data.identity.cell_sketch import CellSketch, SketchArray, same_cells, sketch_of
from cradlevae.data.identity.marks import warn_if_made
from cradlevae.data.split_recipes import RECIPES, UNUSED, Cells, Options
from cradlevae.errors import DataError
from cradlevae.utils.atomic import write_text
from cradlevae.utils.checks import check_anndata, flag, output_file, path_of, seed_number, shown, text, whole_number
from cradlevae.utils.html import summary_html
from cradlevae.utils.names import closest
from cradlevae.utils.outputs import check_output
from cradlevae.utils.types import AnnDataLike, BoolArray, IndexArray

PARTS = ("train", "val", "test")

CONTEXTS = "contexts"
"""The recipe that holds out perturbations in contexts."""

COLUMN = "column"
"""The recipe that reads the parts from a column of ``obs``."""


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
        Sketches of the cells' counts (:mod:`cradlevae.data.identity.cell_sketch`), a row for each of ``parts``, by
        which another cell of the same name is recognised; ``None`` where cells are known by their names alone.

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
            Sketches of the cells by the probe genes of this split, (cells, probes + print).
        """
        assert self.sketch is not None
        place = self.parts.index.get_indexer(cells)
        columns = self.sketch.columns(genes)
        comparable = np.flatnonzero((place >= 0) & self.sketch.known[place])
        other = np.zeros(len(cells), dtype=bool)
        if len(columns):
            recorded = self.sketch.values[place[comparable]][:, columns]
            other[comparable] = ~same_cells(recorded, values[comparable][:, columns])
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

    def _repr_html_(self) -> str:
        sizes = {part: f"{len(self.cells(part)):,} cells" for part in (*PARTS, UNUSED) if len(self.cells(part))}
        seen = {"recipe": self.recipe, "seed": self.seed, **sizes, "hash": self.hash[:12]}
        return summary_html("Split", seen | {"notes": " ".join(self.notes)})


def check_contexts(split: Split, fields: DataFields) -> None:
    """Raise :class:`DataError` where a split holds out contexts that are not read: another question would be scored."""
    key = split.options.get("context_key")
    if key is not None and fields.context_key != key:
        raise DataError(
            f"the split holds out perturbations in contexts of obs[{key!r}], but context_key is "
            f"{fields.context_key!r}; use context_key={key!r}"
        )


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
    held_out: Sequence[tuple[str, str] | str] = (),
    fields: DataFields | None = None,
    **field_options: Any,
) -> Split:
    """Assign every cell to train, validation or test.

    Parameters
    ----------
    adata
        AnnData, or cells on disk, with perturbation labels.
    recipe
        ``"combinations"``, ``"combinations_published"``, ``"cells"``, ``"perturbations"``, ``"contexts"`` or
        ``"column"``.
    seed
        Seed of the recipe.
    n_shared
        For ``perturbations``: number of single perturbations of a held-out condition that are seen in training (0, 1
        or 2).
    column
        For ``column``: the ``obs`` column that holds ``train``, ``val`` and ``test``.
    held_out
        For ``contexts``: perturbations (or combinations) and the contexts that they are held out in, e.g.
        ``[("panobinostat", "D1")]``, or ``["panobinostat:D1"]``; by default a random quarter of all such pairs. A fifth
        of the controls of these contexts is held out, too.
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
    if not isinstance(recipe, str) or recipe not in (*RECIPES, COLUMN):
        raise DataError(f"unknown split recipe {recipe!r}{closest(str(recipe), [*RECIPES, COLUMN])}")
    seed = seed_number(seed)
    n_shared = whole_number("n_shared", n_shared)
    pairs = held_out_pairs(held_out)
    fields = fields_of(fields, field_options)
    check_anndata(adata)
    check_unique(adata.obs_names, "cell", "adata.obs_names_make_unique()")
    _check_meaningful(recipe, seed, n_shared, column, pairs)
    warn_if_made(adata, "split")
    if recipe == COLUMN:
        assigned = _by_column(adata, column)
    else:
        assigned = _by_recipe(_cells_of(adata, fields), recipe, seed, Options(n_shared, pairs), fields)
    return replace(assigned, sketch=sketch_of(adata, fields.layer))


def _cells_of(adata: AnnDataLike, fields: DataFields) -> Cells:
    """What recipes look at."""
    labels = condition_labels(adata, fields)
    factors = read_factors(adata, fields, usable=(labels != "").to_numpy())
    context = next((factor for factor in factors if factor.role == "context"), None)
    contexts = None
    if context is not None:
        names = np.array([*context.levels, ""], dtype=object)  # the last is that of cells without a condition
        contexts = pd.Series(names[context.codes], index=labels.index, dtype=object)
    return Cells(labels, strata_codes(factors, len(labels)), contexts)


def _by_recipe(cells: Cells, recipe: str, seed: int, options: Options, fields: DataFields) -> Split:
    if options.held_out:
        options = replace(options, held_out=canonical_pairs(options.held_out, fields, set(cells.labels)))
    parts, notes = RECIPES[recipe](cells, np.random.default_rng(seed), options)
    recorded: dict[str, Any] = {"n_shared": options.n_shared} if recipe == "perturbations" else {}
    if recipe == CONTEXTS:
        recorded["context_key"] = fields.context_key
    if options.held_out:
        recorded["held_out"] = [list(pair) for pair in sorted(options.held_out)]
    return Split(parts, recipe, seed, recorded, tuple(notes))


def _check_meaningful(
    recipe: str, seed: int, n_shared: int, column: str | None, held_out: tuple[tuple[str, str], ...]
) -> None:
    """Raise :class:`DataError` for an argument that means nothing for a recipe."""
    if n_shared and recipe != "perturbations":
        raise DataError(f"the recipe {recipe!r} has no n_shared; leave it out, or use the recipe 'perturbations'")
    if held_out and recipe != "contexts":
        raise DataError(f"the recipe {recipe!r} has no held_out; leave it out, or use the recipe 'contexts'")
    if column is not None and recipe != COLUMN:
        raise DataError(f"the recipe {recipe!r} reads no column; leave column= out, or use the recipe 'column'")
    if seed and recipe == COLUMN:
        raise DataError("the recipe 'column' draws nothing at random; leave seed out")


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
