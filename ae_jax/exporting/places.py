"""Removes the paths of folders of the training machine from JSON data that is published."""

import os
import pathlib
from typing import Any


def without_folders(tree: Any, *paths: str) -> Any:
  """Returns a copy of JSON data in which each of the given paths is replaced by the name of its file or folder.

  The absolute path and the resolved path are replaced, too. Elsewhere in the texts, the paths of their parent folders
  are deleted. No files are changed.

  Args:
    tree: Nested dicts, lists and strings.
    *paths: The paths, such as `config.data.path`. Addresses such as hf://user/name are not changed.
  """
  for path in paths:
    tree = tree if "://" in path else _without_folder(tree, path)
  return tree


def _without_folder(tree: Any, path: str) -> Any:
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
