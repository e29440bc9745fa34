"""The look that all figures share: one palette, one width, one kind of axes.

Everything is set on the objects themselves, so that neither pyplot nor a user's own matplotlib settings play a part.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from cradlevae.errors import DataError
from cradlevae.utils.checks import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any kind of colour vision.
MODEL = "#0072B2"
"""Colour of the model: its predictions, cleaned cells and scores."""
FAILED = "#D55E00"
"""Colour of cells that failed quality control, and of what the artifact does."""
CEILING = "#009E73"
"""Colour of the best score that can be attained."""
PASSING = "#9AA3AC"
"""Colour of cells that passed, and of other things in the background."""
FLOOR = "#5F6770"
"""Colour of floors."""
CLASSES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#B8A900", "#000000")
"""Colours of up to eight kinds of things: perturbations, classes."""
INK = "#22262A"
"""Colour of text."""
MUTED = "#5F6770"
"""Colour of less important text, and of reference lines."""
GRID = "#E7EAED"
"""Colour of grid lines."""

MILLIMETRE = 1 / 25.4
"""In inches."""
WIDTH = 180 * MILLIMETRE
"""Width of a figure in inches: two columns of a journal page."""
COLUMN = 85 * MILLIMETRE
"""Width of a figure in inches: one column of a journal page."""
TALLEST = 225 * MILLIMETRE
"""Height in inches of a figure that fills a journal page."""
TITLE_SIZE = 10.0
PANEL_TITLE_SIZE = 8.0
LABEL_SIZE = 7.5
TICK_SIZE = 7.0
NOTE_SIZE = 6.5
TITLE_CHARACTERS, PANEL_TITLE_CHARACTERS, CAPTION_CHARACTERS = 11.2, 15.0, 18.6
"""Number of characters of titles and of a caption that fit on a line of one inch."""


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Make an empty figure, ``height`` by ``width`` in inches, whose panels arrange themselves."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from cradlevae.reporting.layout.notebook import ShownFigure

    figure = ShownFigure(figsize=(width, height), layout="constrained", facecolor="white", dpi=150)
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, wspace=0.02, hspace=0.02)  # type: ignore[union-attr,call-arg]
    return figure


def check_table(name: str, table: Any, needed: Sequence[str], source: str) -> None:
    """Raise :class:`DataError` unless this is a table with the columns that are needed."""
    if not isinstance(table, pd.DataFrame):
        raise DataError(f"{name} is {shown(table)}; give the table that {source} returns")
    absent = [column for column in needed if column not in table]
    if absent:
        raise DataError(f"{name} has no column {absent[0]!r}; give the table that {source} returns")


def one_panel(ax: Axes | None, height: float, width: float = COLUMN) -> Axes:
    """The axes of a figure of one panel: those that a user gave, or else those of a new figure.

    Raises
    ------
    DataError
        If ``ax`` is something else than axes.
    """
    from matplotlib.axes import Axes

    if ax is None:
        ax = new_figure(height, width).add_subplot()
    elif not isinstance(ax, Axes):
        raise DataError(f"ax is {shown(ax)}; it must be a matplotlib Axes, e.g. of fig, ax = plt.subplots()")
    dress(ax)
    return ax


def one_panel_done(ax: Axes, given: Axes | None, title: str, caption: str = "") -> Figure | Axes:
    """Write title and caption, and return the new figure, or the axes that the user gave, with no more than a title.

    A notebook shows what is returned. It shows the figure of the user's axes by itself, so that this is not returned.
    """
    if given is not None:
        width = ax.get_window_extent().width / ax.figure.dpi
        lines = textwrap.fill(title, max(8, round(width * PANEL_TITLE_CHARACTERS)))
        ax.set_title(lines, loc="left", fontsize=PANEL_TITLE_SIZE, color=INK, pad=5, parse_math=False)
        return ax
    figure: Any = ax.figure
    headline(figure, title, caption)
    return figure  # type: ignore[no-any-return]


def panels(n: int, *, columns: int = 3, row_height: float = 1.9, head: float = 0.9) -> tuple[Figure, list[Axes]]:
    """Make a figure with ``n`` panels, row by row.

    Parameters
    ----------
    n
        Number of panels, at least 1.
    columns
        Panels of a full row.
    row_height
        Height of a row in inches.
    head
        Height in inches of title and caption.
    """
    columns = min(columns, n)
    rows = -(-n // columns)
    figure = new_figure(head + rows * row_height)
    grid = figure.add_gridspec(rows, columns)
    axes = [figure.add_subplot(grid[index // columns, index % columns]) for index in range(n)]
    for ax in axes:
        dress(ax)
    return figure, axes


def dress(ax: Axes) -> None:
    """Give axes the common look: two spines, a light grid behind the data, small ticks."""
    ax.set_facecolor("white")
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(MUTED)
        spine.set_linewidth(0.6)
    ax.grid(True, color=GRID, linewidth=0.6, linestyle="-")
    ax.set_axisbelow(True)
    ax.tick_params(which="both", labelsize=TICK_SIZE, labelcolor=INK, color=MUTED, width=0.6, length=2.5)
    ax.tick_params(which="minor", length=1.5)


def name_axes(ax: Axes, *, x: str = "", y: str = "", title: str = "") -> None:
    """Write labels and a left-aligned title on axes; text is taken as it is, ``$`` included."""
    ax.set_xlabel(x, fontsize=LABEL_SIZE, color=INK, parse_math=False)
    ax.set_ylabel(y, fontsize=LABEL_SIZE, color=INK, parse_math=False)
    ax.set_title(title, loc="left", fontsize=PANEL_TITLE_SIZE, color=INK, pad=5, parse_math=False)


def headline(figure: Figure, title: str, caption: str = "") -> None:
    """Write above the panels what they show, and below them how to read it."""
    lines = _filled(figure, title, TITLE_CHARACTERS)
    figure.suptitle(lines, x=0.01, ha="left", fontsize=TITLE_SIZE, fontweight="bold", color=INK, parse_math=False)
    if caption:
        figure.supxlabel(
            _filled(figure, caption, CAPTION_CHARACTERS),
            x=0.01,
            ha="left",
            fontsize=NOTE_SIZE,
            color=MUTED,
            linespacing=1.35,
            parse_math=False,
        )


def _filled(figure: Figure, text: str, characters: float) -> str:
    """Break a text into lines that fit the figure."""
    return textwrap.fill(text, round(figure.get_figwidth() * characters))


def legend(ax: Axes, *, above: bool = False) -> None:
    """Add a legend without a frame, in the upper right corner or, in one line, above the axes."""
    place: dict[str, Any] = {"loc": "upper right"}
    if above:
        place = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": 4}
    ax.legend(fontsize=TICK_SIZE, labelcolor=INK, frameon=False, handlelength=1.4, borderaxespad=0.2, **place)


def number(value: float, digits: int = 2) -> str:
    """Write a number with so many digits after the point and a true minus sign."""
    return f"{value:.{digits}f}".replace("-", "−")


def percent(part: float, whole: float) -> str:
    """Write a share in percent; a share that is not zero is never written as 0 %."""
    share = part / whole
    return "<0.1%" if 0 < share < 0.0005 else f"{share:.1%}"


def shorten(name: str, length: int = 28) -> str:
    """Cut a name that would not fit above a panel."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def plain_log_ticks(axis: Axis, low: float, high: float) -> None:
    """Ticks such as 200 or 3,000 on a logarithmic axis from ``low`` to ``high`` instead of powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    ratio = high / low
    subs = (1.0,) if ratio > 1e3 else (1.0, 3.0) if ratio > 20 else (1.0, 2.0, 5.0)
    axis.set_major_locator(MaxNLocator(3) if ratio < 5 else LogLocator(subs=subs, numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))


def plain_counts(axis: Axis) -> None:
    """Ticks such as 2,000 at whole numbers of a linear axis."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(5, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def say_instead(ax: Axes, text: str, *, width: int = 34) -> None:
    """Turn a panel into a sentence that says why it shows nothing; its title stays."""
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.text(
        0.5,
        0.5,
        textwrap.fill(text, width),
        transform=ax.transAxes,
        ha="center",
        va="center",
        fontsize=LABEL_SIZE,
        color=MUTED,
        style="italic",
        parse_math=False,
    )
