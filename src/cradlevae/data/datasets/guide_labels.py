"""Readers of the labels of the published data sets.

Each reader takes a label and returns the perturbed genes, sorted: an empty tuple for a cell with control guide RNAs
only, and ``None`` for a cell without an assigned guide RNA. A reader raises :class:`ValueError` where it cannot read a
label: it never guesses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from cradlevae.data.labels import DEFAULT_CONTROLS

Singles = tuple[str, ...] | None
"""The single perturbations of a cell: none for a control, ``None`` where no guide RNA is assigned."""

Reader = Callable[[str], Singles]
"""A function that reads one label."""

UNASSIGNED = frozenset({"", "nan", "none", "na", "*", "unassigned"})
"""Labels of cells without a detected guide RNA; case does not matter."""

_GENE = re.compile(r"[A-Za-z][A-Za-z0-9.\-]*")
_CONTROLS = frozenset(DEFAULT_CONTROLS)

# Norman: <A>_<B>__<A>_<B>, both halves the same pair of guide RNAs, perhaps with the number of the construct behind
_PAIR = re.compile(r"(?P<one>[^_]+)_(?P<two>[^_]+)__(?P=one)_(?P=two)(?:_\d+)?")
_NEGATIVE = re.compile(r"NegCtrl\d+\w?")
# Dixit: p_sgELK1_2 or p_INTERGENIC393453
_GUIDE = re.compile(r"(?:p_)?(?:sg(?P<gene>[A-Za-z0-9.\-]+)_\d+|INTERGENIC\d*)")
_BETWEEN = re.compile(r"\s*[+,;|]\s*")
# Adamson: <gene>_p<construct>; the constructs pMJ carry up to three guide RNAs and name the proteins of the sensors
_CONSTRUCT = re.compile(r"(?P<name>.+)_p(?P<kind>[A-Z]{2})\d+(?:-\d+)?")
_ADAMSON_CONTROLS = re.compile(r"(?:62|63|Gal4-4)\(mod\)|3x_neg_ctrl")
_SENSORS = {"PERK": "EIF2AK3", "IRE1": "ERN1"}
# Replogle: two guide RNAs of one gene, <gene>_<strand>_<position>-<promoter>|…
_STRAND = re.compile(r"(?P<gene>.+)_[+-]_\d+\.\d+-\S+")
_NON_TARGETING = re.compile(r"non-targeting(?:_\d+)?")


def standard(label: str) -> Singles:
    """Read ``control``, ``A``, ``A+B`` or ``A_B``, as scPerturb and this package write them."""
    if label.casefold() in UNASSIGNED:
        return None
    return _genes(re.split(r"[+_]", label))


def one_gene(label: str) -> Singles:
    """Read ``non-targeting`` or the name of one gene."""
    return None if label.casefold() in UNASSIGNED else _genes([label])


def norman_identity(label: str) -> Singles:
    """Read ``A_B__A_B``, where ``NegCtrl0`` in place of a gene is a control guide RNA."""
    if label.casefold() in UNASSIGNED:
        return None
    pair = _matched(_PAIR, label)
    return _genes(name for name in pair.group("one", "two") if not _NEGATIVE.fullmatch(name))


def norman_ids(label: str) -> Singles:
    """Read ``A,B`` or ``A``; an empty label means that there are control guide RNAs only."""
    if not label:
        return ()
    return None if label.casefold() in UNASSIGNED else _genes(re.split(r"[,_]", label))


def dixit_guides(label: str) -> Singles:
    """Read guide RNAs such as ``p_sgELK1_2``, several with ``+`` between them; intergenic ones are controls."""
    if label.casefold() in UNASSIGNED:
        return None
    guides = [_matched(_GUIDE, guide) for guide in _BETWEEN.split(label)]
    return _genes(guide["gene"] for guide in guides if guide["gene"] is not None)


def dixit_standard(label: str) -> Singles:
    """Read guide RNAs as :func:`dixit_guides` does, or else scPerturb's form of the labels."""
    try:
        return dixit_guides(label)
    except ValueError:
        return standard(label)


def adamson_construct(label: str) -> Singles:
    """Read constructs such as ``SPI1_pDS255``, ``63(mod)_pBA580`` (a control) or ``ATF6_PERK_pMJ150`` (two genes)."""
    construct = _CONSTRUCT.fullmatch(label)
    if construct is None:
        return one_gene(label)
    name = construct["name"]
    if _ADAMSON_CONTROLS.fullmatch(name):
        return ()
    if construct["kind"] == "MJ":
        return _genes(_SENSORS.get(part, part) for part in name.removesuffix("_only").split("_"))
    return _genes([name])


def replogle_pair(label: str) -> Singles:
    """Read the pair ``AAAS_+_53715438.23-P1P2|AAAS_-_53715355.23-P1P2``, or ``non-targeting_1|non-targeting_2``."""
    if label.casefold() in UNASSIGNED:
        return None
    guides = [guide for guide in label.split("|") if not _NON_TARGETING.fullmatch(guide)]
    return _genes(_matched(_STRAND, guide)["gene"] for guide in guides)


def _matched(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    match = pattern.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return match


def _genes(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names without controls, unique and sorted; :class:`ValueError` if one is not a valid gene name."""
    genes = {name for name in names if name.casefold() not in _CONTROLS}
    for name in genes:
        _matched(_GENE, name)
    return tuple(sorted(genes))
