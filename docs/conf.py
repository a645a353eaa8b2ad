"""Sphinx's configuration; the site is built by ``python docs/build.py OUT``, which adds generated pages."""

project = "Training-log analyzer"
html_title = project
extensions = ["myst_parser", "sphinx_design", "sphinx_copybutton"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
html_theme = "furo"
html_show_sourcelink = False
html_copy_source = False
exclude_patterns = ["README.md"]
nitpicky = True  # a link that leads nowhere fails the build
suppress_warnings = ["myst.header"]  # generated tables have no document title of their own
pygments_style = "friendly"
pygments_dark_style = "github-dark"
