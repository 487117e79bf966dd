"""The documentation site: README, teacher's kit, these pages and every notebook as it is stored.

`make docs` builds it into docs/_build; nothing is executed. The source folder is the repository.
"""

project = "Which guitar effects are on this recording?"
author = "the maintainers of this compendium"
copyright = "2026, MIT licence"

extensions = ["myst_nb", "sphinx.ext.mathjax"]
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "TEACHING.md",
    "docs/*.md",
    "notebooks/*.ipynb",
    "data/README.md",
    "data/weights/*/README.md",
    "data/real/*/README.md",
    "figures/reference/quick/claims.md",
]
exclude_patterns = ["docs/_build/**"]

nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing", "myst.header", "mystnb.unknown_mime_type", "toc.no_title"]

html_theme = "furo"
html_title = "Guitar effects and a neural codec"
html_show_sourcelink = False
