"""Sphinx configuration: ``pip install ".[docs]" && sphinx-build -W docs docs/_build``."""

import shutil
from importlib.metadata import version as installed_version
from pathlib import Path

# The notebook belongs to the examples; here it is a page, too.
_here = Path(__file__).parent
shutil.copy(_here.parent / "examples" / "quickstart.ipynb", _here / "quickstart.ipynb")

project = "diffmic"
author = "The diffmic developers"
version = release = installed_version("diffmic")

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
]
html_theme = "furo"
html_title = "diffmic"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 2
nb_execution_mode = "force"
nb_execution_timeout = 900
nb_execution_raise_on_error = True

autodoc_typehints = "none"  # the docstrings say more
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
intersphinx_mapping: dict[str, tuple[str, None]] = {}
