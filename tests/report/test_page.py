"""Pages: one file that is written atomically, without unneeded scripts and network access."""

import os
import re

import pytest

from ae_jax import errors
from ae_jax.report import page


def test_page_embeds_images_and_escapes_texts(tmp_path):
  picture = tmp_path / "a.png"
  picture.write_bytes(b"\x89PNG")
  table = page.table(["name"], [["<script>alert(1)</script>"]])
  sections = [("Pictures", [page.picture(picture, 'a "curve"')]), ("Members", [table, page.notes("a & b")])]
  page.write(tmp_path / "p.html", "<b>", "16 is enough", sections)
  text = (tmp_path / "p.html").read_text()
  assert "data:image/png;base64,iVBORw==" in text
  assert "16 is enough" in text
  assert "&lt;script&gt;" in text
  assert "<script" not in text
  assert "a &amp; b" in text
  assert "A &#34;curve&#34;." in text
  assert not re.search(r"(?<!-)(src|href|url)\W{1,2}https?:", text)
  assert not list(tmp_path.glob("*.part"))


def test_page_forbids_network_access(tmp_path):
  page.write(tmp_path / "p.html", "title", "answer", [])
  (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', (tmp_path / "p.html").read_text())
  assert "default-src 'none'" in policy
  assert "http" not in policy


def test_empty_sections_are_left_out(tmp_path):
  page.write(tmp_path / "p.html", "title", "answer", [("Empty", []), ("Full", [page.notes("something")])])
  text = (tmp_path / "p.html").read_text()
  assert "Empty" not in text
  assert "Full" in text


@pytest.mark.parametrize("failing", ["write_text", "replace"])
def test_failed_write_is_an_error_and_keeps_the_old_page(tmp_path, monkeypatch, failing):
  path = tmp_path / "p.html"
  page.write(path, "title", "the first", [])

  def full(*_, **__):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(*((type(path), failing) if failing == "write_text" else (os, failing)), full)
  with pytest.raises(errors.UserError, match=r"p\.html: cannot be written: No space left on device"):
    page.write(path, "title", "the second", [])
  monkeypatch.undo()
  assert "the first" in path.read_text()
  assert [file.name for file in tmp_path.iterdir()] == ["p.html"]


def test_missing_folder_is_an_error(tmp_path):
  with pytest.raises(errors.UserError, match="cannot be written"):
    page.write(tmp_path / "none" / "p.html", "title", "answer", [])
