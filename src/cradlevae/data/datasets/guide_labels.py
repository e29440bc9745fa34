"""Labels of cells as the published data sets write them, read into the single perturbations that they stand for.

Each reader takes a label and gives the perturbed genes, sorted: none for a cell with control guide RNAs only; or
``None`` for a cell without an assigned guide RNA. What it cannot read it refuses with :class:`ValueError`: a label is
never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from cradlevae.data.labels import DEFAULT_CONTROLS

Members = tuple[str, ...] | None
Reader = Callable[[str], Members]

UNASSIGNED = frozenset({"", "nan", "none", "na", "*", "unassigned"})
"""Labels of cells in which no guide RNA was found; case does not matter."""

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


def standard(label: str) -> Members:
    """Read ``control``, ``A``, ``A+B`` or ``A_B``, as scPerturb and this package write them."""
    if label.casefold() in UNASSIGNED:
        return None
    return _genes(re.split(r"[+_]", label))


def one_gene(label: str) -> Members:
    """Read ``non-targeting`` or the name of one gene."""
    return None if label.casefold() in UNASSIGNED else _genes([label])


def norman_identity(label: str) -> Members:
    """Read ``A_B__A_B``, where a member ``NegCtrl0`` is a control guide RNA."""
    if label.casefold() in UNASSIGNED:
        return None
    pair = _matched(_PAIR, label)
    return _genes(name for name in pair.group("one", "two") if not _NEGATIVE.fullmatch(name))


def norman_ids(label: str) -> Members:
    """Read ``A,B``, ``A`` or, for control guide RNAs only, nothing."""
    if not label:
        return ()
    return None if label.casefold() in UNASSIGNED else _genes(re.split(r"[,_]", label))


def dixit_guides(label: str) -> Members:
    """Read guide RNAs such as ``p_sgELK1_2``, several with ``+`` between them; intergenic ones are controls."""
    if label.casefold() in UNASSIGNED:
        return None
    guides = [_matched(_GUIDE, guide) for guide in _BETWEEN.split(label)]
    return _genes(guide["gene"] for guide in guides if guide["gene"] is not None)


def dixit_standard(label: str) -> Members:
    """Read guide RNAs as :func:`dixit_guides` does, or else what scPerturb made of them."""
    try:
        return dixit_guides(label)
    except ValueError:
        return standard(label)


def adamson_construct(label: str) -> Members:
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


def replogle_pair(label: str) -> Members:
    """Read the pair ``AAAS_+_53715438.23-P1P2|AAAS_-_53715355.23-P1P2``, or ``non-targeting_1|non-targeting_2``."""
    if label.casefold() in UNASSIGNED:
        return None
    guides = [guide for guide in label.split("|") if not _NON_TARGETING.fullmatch(guide)]
    return _genes(_matched(_STRAND, guide)["gene"] for guide in guides)


def _matched(pattern: re.Pattern[str], text: str) -> re.Match[str]:
    found = pattern.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return found


def _genes(names: Iterable[str]) -> tuple[str, ...]:
    """Names without controls, each once, sorted; :class:`ValueError` if one is no name of a gene."""
    genes = {name for name in names if name.casefold() not in _CONTROLS}
    for name in genes:
        _matched(_GENE, name)
    return tuple(sorted(genes))
