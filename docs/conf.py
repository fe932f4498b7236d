"""How Sphinx builds the documentation: ``sphinx-build -W -b html docs docs/_build``. Nothing is fetched."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The package need not be installed, and the tables are made by the code of the benchmarks.
sys.path[:0] = [str(ROOT), str(Path(__file__).parent / "_extensions")]

project = "bids-harmonize"
author = "The bids-harmonize developers"
copyright = author
release = version = (ROOT / "version").read_text(encoding="utf-8").strip()

extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc", "sphinxarg.ext", "generated"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Signatures hold the types already, and a page per method would bury the few that matter.
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
numpydoc_show_class_members = False

html_theme = "furo"
html_title = f"bids-harmonize {release}"
html_show_sphinx = False
html_show_copyright = False
html_css_files = ["wide-tables.css"]
html_static_path = ["_static"]
