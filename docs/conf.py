"""Sphinx configuration of the documentation."""

import pathlib
import re

import ae_jax

project = "ae_jax"
author = "The ae_jax authors"
version = release = ae_jax.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
default_role = "code"  # single backticks in docstrings
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings give shapes
napoleon_google_docstring = True
copybutton_prompt_text = "$ "
nitpicky = False

html_theme = "sphinx_book_theme"
html_title = "ae_jax"
html_static_path = ["_static"]
html_css_files = ["wrap.css"]
html_theme_options = {
  "show_toc_level": 2,
  "use_download_button": False,
  "home_page_in_toc": True,
  "navbar_persistent": [],
}


def write_config_reference(app):
  """Writes reference/configs.md: every key of the shared config, and the shipped configs."""
  from ae_jax import config as configs
  from ae_jax.config import reference, shipped

  keys = configs.flat(configs.as_json(configs.base("mnist_5k")))
  meanings = {key: text.replace("|", "\\|") for key, text in reference.meanings().items()}
  lines = ["# Configs", "", "## Shipped configs", "", "| name | summary |", "|---|---|"]
  lines += [f"| `{name}` | {summary} |" for name, summary in shipped.summaries().items()]
  lines += ["", "## Keys of every config", "", "| key | default | meaning |", "|---|---|---|"]
  lines += [f"| `{key}` | `{value!r}` | {meanings[key]} |" for key, value in sorted(keys.items())]
  lines += [
    "",
    "The section `model` depends on the model family: `ae_jax describe --config=NAME` explains its keys.",
    "",
  ]
  (pathlib.Path(app.srcdir) / "reference" / "configs.md").write_text("\n".join(lines))


def escape_shapes(app, what, name, obj, options, lines):
  """Escapes * and | outside backticks, which docstrings use for shapes and norms: [B, *shape], |x|."""
  for number, line in enumerate(lines):
    parts = re.split(r"(`[^`]*`|:\w+:`[^`]*`)", line)
    lines[number] = "".join(
      part if part.endswith("`") and "`" in part[:-1] else re.sub(r"(?<!\\)[*|]", r"\\\g<0>", part) for part in parts
    )
    lines[number] = re.sub(r"(`[^`]+`)(?=\w)", r"\1\\ ", lines[number])  # `name`s


def setup(app):
  """Connects the generated page and the escaping."""
  app.connect("autodoc-process-docstring", escape_shapes, priority=900)
  app.connect("builder-inited", write_config_reference)
