"""Sphinx's settings for medkit's pages; `make docs` calls docs/build.py, which prepares the sources."""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

project = "medkit"
copyright = "2026 onwards, medkit developers"
extensions = ["myst_nb"]
nb_execution_mode = "off"  # the notebooks carry their outputs
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.unknown_mime_type", "misc.highlighting_failure", "myst.header"]
html_theme = "pydata_sphinx_theme"
html_title = "medkit"
html_math_renderer = "mathml"
html_theme_options = {
    "navigation_with_keys": True,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
html_show_sourcelink = False
html_copy_source = False


def write_math(translator, node) -> None:
    "Formulas as MathML, which browsers draw themselves: the usual renderer loads a script from another host."
    block = isinstance(node, nodes.math_block)
    translator.body.append(tex2mathml(node.astext(), as_block=block).replace("\n", " "))
    raise nodes.SkipNode


def setup(app) -> dict:
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
