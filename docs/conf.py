"""How the site is built: `make docs`. Tutorials are executed, and warnings are errors."""

from __future__ import annotations

import re
from importlib.metadata import version as installed_version
from typing import Any

project = "cradlevae"
author = "the cradlevae founders"
version = release = installed_version("cradlevae")
html_title = f"cradlevae {version}"
copyright = "the cradlevae founders; MIT licence"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "**/.ipynb_checkpoints"]
html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "use_download_button": False,
    "show_navbar_depth": 1,
}

# -- pages in Markdown, and tutorials that are executed ----------------------------------------------------------

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"
suppress_warnings = ["mystnb.unknown_mime_type", "toc.not_included"]

# -- the reference of every public name --------------------------------------------------------------------------

autosummary_generate = True
autodoc_typehints = "none"  # the signature in the heading has them
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "inherited-members": True}
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_preprocess_types = False

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

linkcheck_timeout = 20


def _outside_of_the_site(app: Any, docname: str, source: list[str]) -> None:
    """Links of pages into the repository, which the site does not hold, become plain names."""
    source[0] = re.sub(r"\[([^\]]+)\]\(\.\./(?!README|CHANGELOG|CONTRIBUTING)[^)]*\)", r"`\1`", source[0])


def setup(app: Any) -> None:
    """Read pages as they lie in the repository."""
    app.connect("source-read", _outside_of_the_site)
