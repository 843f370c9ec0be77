"""A page to look at and to send: one HTML file that holds all it shows, and needs no network."""

import base64
import importlib.metadata
import importlib.resources
import os

from ae_jax import errors


def write(path, title, answer, sections, facts=(), tiles=()):
  """Writes a page: a title, what there is to say in large letters, facts in a line, tiles with numbers, and sections.

  A tile is {"name", "value", "beside"}, a section (title, blocks), and a block what `parts` or a function below makes.
  The file is replaced as a whole; UserError where it cannot be.
  """
  import jinja2  # here, as all that only pages need: training does not wait for it

  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("ae_jax", "report"), autoescape=True, undefined=jinja2.ChainableUndefined
  )
  environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # BokehJS reads what refers to what in order
  shown = [
    {"title": name, "id": f"part-{number}", "blocks": _numbered(number, blocks)}
    for number, (name, blocks) in enumerate(sections)
    if blocks
  ]
  kinds = {block["kind"] for section in shown for block in section["blocks"]}
  script = library = ""
  if kinds & {"chart", "map", "explorer"}:
    script = _file("page.js")
  if kinds & {"chart", "map"}:
    from ae_jax.report import charts

    library = charts.script()
  text = environment.get_template("template.html").render(
    title=title,
    answer=answer,
    sections=shown,
    facts=facts,
    tiles=tiles,
    footer=f"Made by ae_jax {importlib.metadata.version('ae_jax')}; nothing in this file comes from a network.",
    style=_file("page.css"),
    library=library,
    script=script,
  )
  part = path.with_name(f"{path.name}.part")
  with errors.writing(path):
    try:
      part.write_text(text, encoding="utf-8")
      os.replace(part, path)
    finally:
      part.unlink(missing_ok=True)


def picture(file, title):
  """A block: a PNG file, and what it shows."""
  url = f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
  return {"kind": "picture", "title": title, "url": url}


def table(head, lines, title="", **looks):
  """A block: a table of texts, the first of a line its head; `looks` are `style`="words" and `folded`, a summary."""
  return {"kind": "table", "title": title, "head": head, "lines": lines} | looks


def notes(*lines):
  """A block: sentences."""
  return {"kind": "notes", "lines": lines}


def _numbered(section, blocks):
  """The blocks, each with an id."""
  return [block | {"id": f"block-{section}-{number}"} for number, block in enumerate(blocks)]


def _file(name):
  return importlib.resources.files("ae_jax.report").joinpath(name).read_text(encoding="utf-8")
