"""The gene that a guide RNA targets, read from the name of the guide RNA by a stated rule.

1. A name of a non-targeting guide RNA (``NT_12``, ``non-targeting_3``, ``NegCtrl0``, ``safe-targeting-1``,
   ``INTERGENIC393453``, …) is a control.
2. A name that is a gene of the data is that gene (``HLA-A``, ``NKX2-1``).
3. Of the beginnings of the name that end before ``_``, ``-``, ``.``, ``:``, ``|``, a blank or a number with or without
   ``g`` or ``sg`` before it, the longest that is a gene of the data is the target: ``HLA-A-2`` → ``HLA-A``.
   A prefix such as ``sg`` or ``p_sg`` is left out where that leads to a gene.
4. Where no beginning is a gene of the data, one number of the guide RNA is cut off: ``GAL4_2``, ``GAL4-2``,
   ``sgGAL4_2`` and ``GAL4g2`` → ``GAL4``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from cradlevae.data.labels import CONTROL

_PREFIX = re.compile(r"(?:p_)?sg(?:RNA)?[_\-. ]?|gRNA[_\-. ]?|p_|guide[_\-. ]", re.IGNORECASE)
"""What stands before the gene in names such as ``sgSTAT1_2`` or ``p_sgELK1_2``."""

_LOWER_PREFIX = re.compile(r"(?:p_)?sg(?=[A-Z0-9])|sgRNA[_\-. ]|gRNA[_\-. ]|guide[_\-. ]")
"""The same where no gene of the data tells a prefix from the beginning of a name (``SGK1``)."""

_SEPARATOR = "[-_. ]"

_LONG = (
    rf"non{_SEPARATOR}?target(?:ing|er)?(?:{_SEPARATOR}?(?:ctrl|control))?|(?:neg(?:ative)?|nt|scr){_SEPARATOR}?(?:ctr|ctrl|control)s?"
    rf"|ctrls?|controls?|negative|safe(?:{_SEPARATOR}?(?:targeting|target|harbou?r|cutter))?|scrambled?|intergenic"
    rf"|no{_SEPARATOR}site|(?:one|zero){_SEPARATOR}?(?:non{_SEPARATOR}?gene|intergenic)(?:{_SEPARATOR}site)?"
)
"""Words that stand for no target whatever follows behind a separator or as a number."""

_SHORT = "nt|ntc|nc|neg|scr"
"""Abbreviations of such words; a whole number must follow (``NT5E`` is a gene)."""

_GUIDE = rf"{_SEPARATOR}*(?:s?g(?:rna)?|guide)?{_SEPARATOR}*"

_CONTROL = re.compile(
    rf"(?:{_LONG})(?:{_GUIDE}\d.*|{_SEPARATOR}.*)?|(?:{_SHORT})(?:{_GUIDE}\d+(?![a-z\d]).*|{_SEPARATOR}[a-z])?",
    re.IGNORECASE,
)
"""Names of guide RNAs that target no gene."""

_STRAND = re.compile(r"(?P<gene>.+)_[+-]_\d+(?:\.\d+)?.*")
"""Names with strand and position, ``AAAS_+_53715438.23-P1P2``."""

_NUMBER = re.compile(r"(?P<gene>.*[^\W_])(?:[_\-. |:]+(?:s?g(?:rna)?|guide)?[_\-. ]?\d+[a-z]?|s?g\d+)", re.IGNORECASE)
"""A name with one number of a guide RNA behind it; a bare number belongs to the name, as in ``GAL4``."""

_CUT = re.compile(r"[_\-. |:]+|s?g(?:RNA)?[_\-.]?\d+[A-Za-z]?$", re.IGNORECASE)
"""Where a name may be cut."""


def is_control_name(name: str) -> bool:
    """Whether the name of a guide RNA says that it targets no gene.

    Examples
    --------
    >>> [is_control_name(name) for name in ("NT_12", "sgNT-1", "NegCtrl0", "NTg4", "NTRK1_2", "CTRC-1")]
    [True, True, True, True, False, False]
    """
    bare = name.strip()
    prefix = _PREFIX.match(bare)
    return any(_CONTROL.fullmatch(text) for text in (bare, bare[prefix.end() :] if prefix else bare))


def targets_of_names(names: Iterable[str], genes: Iterable[str]) -> dict[str, str]:
    """Return the target of each guide RNA by the rule of this module; ``control`` for those that target no gene.

    Parameters
    ----------
    names
        Names of guide RNAs.
    genes
        Names of the genes of the data, as they are to be spelled; case does not matter where a name is compared.

    Examples
    --------
    >>> targets_of_names(["HLA-A-2", "sgSTAT1_1", "STAT1g3", "GAL4_2", "NT_7"], ["HLA-A", "STAT1"])
    {'HLA-A-2': 'HLA-A', 'sgSTAT1_1': 'STAT1', 'STAT1g3': 'STAT1', 'GAL4_2': 'GAL4', 'NT_7': 'control'}
    """
    known: dict[str, str] = {}
    for gene in genes:
        known.setdefault(str(gene).casefold(), str(gene))
    return {name: _target(name, known) for name in names}


def _target(name: str, known: Mapping[str, str]) -> str:
    bare = name.strip()
    if bare.casefold() in known:
        return known[bare.casefold()]
    if is_control_name(bare):
        return CONTROL
    prefix = _PREFIX.match(bare)
    for text in dict.fromkeys((bare, bare[prefix.end() :] if prefix else bare)):
        found = next((known[start.casefold()] for start in _beginnings(text) if start.casefold() in known), None)
        if found is not None:
            return found
    lower = _LOWER_PREFIX.match(bare)
    rest = bare[lower.end() :] if lower else bare
    match = _STRAND.fullmatch(rest) or _NUMBER.fullmatch(rest)
    return match["gene"] if match else rest or bare


def _beginnings(name: str) -> Iterator[str]:
    """Yield the name and its beginnings before each place where it may be cut, the longest first."""
    yield name
    for position in sorted({match.start() for match in _CUT.finditer(name)}, reverse=True):
        if position:
            yield name[:position]
