"""Removes the folders of the training machine from JSON that is written for others."""

import os
import pathlib
from typing import Any


def without_folders(tree: Any, path: str) -> Any:
  """Returns a copy of JSON data in which every string has the name of a path in place of the path.

  Args:
    tree: Nested dicts, lists and strings.
    path: The path (`config.data.path`). Also replaced are its absolute form, its form without links, and its folders
      in these forms.
  """
  expanded = os.path.expanduser(path)
  absolute = [os.path.abspath(expanded), os.path.realpath(expanded)] if path else []
  forms = {form: pathlib.PurePath(form).name for form in (path, expanded, *absolute)}
  folders = {os.path.dirname(form) for form in absolute}
  forms |= {folder + os.sep: "" for folder in folders} | dict.fromkeys(folders, "")
  replaced = {form: name for form, name in forms.items() if os.sep in form.strip(os.sep) or os.path.isabs(form)}
  order = sorted((form for form in replaced if form.strip(os.sep)), key=len, reverse=True)
  return _replaced(tree, {form: replaced[form] for form in order})


def _replaced(tree: Any, names: dict[str, str]) -> Any:
  if isinstance(tree, dict):
    return {key: _replaced(value, names) for key, value in tree.items()}
  if isinstance(tree, list | tuple):
    return [_replaced(value, names) for value in tree]
  if isinstance(tree, str):
    for form, name in names.items():
      tree = tree.replace(form, name)
  return tree
