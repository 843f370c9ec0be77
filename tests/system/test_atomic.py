"""A file is replaced as a whole, or not at all."""

import pytest

from ae_jax.system import atomic


def test_the_file_is_replaced(tmp_path):
  file = tmp_path / "values.json"
  for text in ("old", "new: ½"):
    atomic.write_text(file, text)
    assert file.read_text(encoding="utf-8") == text
  assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("exists", [False, True])
def test_an_error_leaves_the_old_file(exists, tmp_path):
  file = tmp_path / "values.json"
  if exists:
    file.write_text("old")

  def interrupt():
    with atomic.replace(file) as part:
      part.write_text("half of the n")
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    interrupt()
  assert list(tmp_path.iterdir()) == [file] * exists
  assert not exists or file.read_text() == "old"
