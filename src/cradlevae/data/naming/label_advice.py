"""What looks odd about the labels of a data set, said with its mend before a model is trained on them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence

from cradlevae.data.fields import DataFields
from cradlevae.data.labels import CONTROL, DEFAULT_CONTROLS, parse_label
from cradlevae.utils.names import listed

OTHER_SEPARATORS = ("+", ";", "|", "_", ",", "&", "/", ":", "-", " ")
"""Texts that often stand between the perturbations of a combination."""

_BETWEEN_WORDS = re.compile(r"\s+and\s+|[\W_]+", re.IGNORECASE)
"""Any other text that may: what stands between letters and digits, or the word "and"."""

_LOOKS_LIKE_CONTROL = re.compile(
    r"control|ctrl|non.?target|scramble|scrmb|safe|neg|mock|dmso|vehicle|untreated|unperturbed|intergenic"
    r"|(?:^|[^a-z0-9])(?:nt|ntc|nc|wt|none|pbs)(?:[^a-z]|$)",
    re.IGNORECASE,
)


def warn_of_labels(labels: Sequence[str], genes: Iterable[str], fields: DataFields) -> None:
    """Warn of labels that may mean something else than they are taken for.

    Parameters
    ----------
    labels
        The distinct labels of the cells as written, or the names of the guide columns.
    genes
        Names of the genes.
    fields
        How the labels are read.

    Warns
    -----
    UserWarning
        Where parts of labels under another separator are labels themselves; where labels differ only in case or blanks;
        where a label begins with a control label; where a default control label is also the name of a gene.
    """
    where = f"obs[{fields.perturbation_key!r}]" if fields.guides_key is None else f"obsm[{fields.guides_key!r}]"
    for message in (
        *_other_separators(labels, fields),
        *_alike(labels, fields),
        *_numbered_controls(labels, fields),
        *_control_genes(labels, genes, fields),
    ):
        warnings.warn(f"{where}: {message}", stacklevel=3)


def likely_controls_first(labels: Sequence[str], n_cells: Sequence[int]) -> list[str]:
    """Sort labels for a message: those that look like controls first, then those with the most cells."""
    ranked = sorted(range(len(labels)), key=lambda index: (-n_cells[index], labels[index]))
    return sorted(
        (labels[index] for index in ranked), key=lambda label: _LOOKS_LIKE_CONTROL.search(label) is None
    )  # stable


def _singles(labels: Iterable[str], fields: DataFields) -> set[str]:
    read = (parse_label(label, separator=fields.separator, control_labels=fields.control_labels) for label in labels)
    return {single for singles in read for single in singles}


def control_separator(labels: Sequence[str], fields: DataFields) -> str | None:
    """The separator under which some labels are controls only, as in ``ctrl;ctrl``; ``None`` where there is none."""
    controls = {name.strip().casefold() for name in (*fields.control_labels, CONTROL)}
    for other in _separators_in(labels, fields):
        if any(_splits(label, other, controls) for label in labels):
            return other
    return None


def _separators_in(labels: Iterable[str], fields: DataFields) -> list[str]:
    """Separators other than that of the fields that stand within labels, the common ones first."""
    labels = [label.strip() for label in labels]
    common = [other for other in OTHER_SEPARATORS if any(other in label for label in labels)]
    rare = sorted({between for label in labels for between in _BETWEEN_WORDS.findall(label)})
    return [other for other in dict.fromkeys((*common, *rare)) if other != fields.separator]


def _splits(label: str, separator: str, names: set[str]) -> bool:
    """Whether a separator splits a label into names alone."""
    parts = [part.strip() for part in label.strip().split(separator)]
    return len(parts) > 1 and all(part in names or part.casefold() in names for part in parts)


def _other_separators(labels: Sequence[str], fields: DataFields) -> Iterator[str]:
    if fields.separator is None:  # the user says that there are no combinations
        return
    known = _singles(labels, fields)
    names = known | {name.strip().casefold() for name in (*fields.control_labels, CONTROL)}
    left = sorted(known)
    for other in _separators_in(known, fields):
        suspicious = [single for single in left if _splits(single, other, names)]
        left = [single for single in left if single not in suspicious]  # each is warned of once
        if suspicious:
            yield (
                f"parts of {listed(suspicious, 3)} under {other!r} are labels themselves, but each is taken for one "
                f"perturbation; for combinations use separator={other!r}, and separator=None where there are none"
            )


def _alike(labels: Sequence[str], fields: DataFields) -> Iterator[str]:
    spellings: dict[str, list[str]] = {}
    for single in sorted(_singles(labels, fields)):
        spellings.setdefault("".join(single.casefold().split()), []).append(single)
    groups = [" and ".join(map(repr, group)) for group in spellings.values() if len(group) > 1]
    if groups:
        more = f" (and {len(groups) - 3} other groups)" if len(groups) > 3 else ""
        yield (
            f"{'; '.join(groups[:3])}{more} differ only in case or blanks, but are taken for different perturbations; "
            "give what is the same one spelling"
        )


def _numbered_controls(labels: Sequence[str], fields: DataFields) -> Iterator[str]:
    numbered: dict[str, str] = {}
    for label in labels:
        read = parse_label(label, separator=fields.separator, control_labels=fields.control_labels)
        control = next((name for name in (*fields.control_labels, CONTROL) if _continues(label, name, fields)), None)
        if read and control is not None:
            numbered.setdefault(label, control)
    if numbered:
        label, control = next(iter(numbered.items()))
        more = ", …" if len(numbered) > 1 else ""
        yield (
            f"{listed(list(numbered), 3)} begin with the control label {control!r}, but are taken for perturbations; "
            f"if they are controls, name them: control_labels=({control!r}, {label!r}{more})"
        )


def _continues(label: str, control: str, fields: DataFields) -> bool:
    """Whether a label is a control label with a number, or another name, behind it."""
    if not control.strip() or not label.strip().casefold().startswith(control.strip().casefold()):
        return False
    rest = label.strip()[len(control.strip()) :]
    if fields.separator is not None and rest.startswith(fields.separator):  # a combination with a control
        return rest[len(fields.separator) :].strip().isdigit()
    return bool(rest) and (rest.isdigit() or not rest[0].isalnum())


def _control_genes(labels: Sequence[str], genes: Iterable[str], fields: DataFields) -> Iterator[str]:
    if tuple(fields.control_labels) != DEFAULT_CONTROLS:  # named controls mean what they say
        return
    controls = {name.casefold() for name in fields.control_labels}
    named = {str(gene).casefold(): str(gene) for gene in genes if str(gene).casefold() in controls}
    pieces = {piece.strip() for label in labels for piece in (label, *label.split(fields.separator or label))}
    for piece in sorted(pieces):
        if piece.casefold() in named:
            gene = named[piece.casefold()]
            others = tuple(name for name in DEFAULT_CONTROLS if name != piece.casefold())
            yield (
                f"cells with the label {piece!r} are taken for controls, but {gene!r} is also a gene; name your "
                f"controls: control_labels=({piece!r},) if these cells are controls, control_labels={others!r} if not"
            )
