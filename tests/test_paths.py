import pathlib

import pytest

from ae_jax import errors, paths


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
  monkeypatch.setenv("HOME", str(tmp_path))
  assert paths.local_path("--workdir", "~/runs/x") == tmp_path / "runs" / "x"
  assert paths.local_path("--workdir", pathlib.Path("~")) == tmp_path
  assert paths.local_path("--workdir", "~no-such-user/x") == pathlib.Path("~no-such-user/x")


@pytest.mark.parametrize("text", ["runs/x", "/runs/x", "a~b", "C:/runs", "C:\\runs", "runs/gs://x", "", "x:y"])
def test_a_local_path_is_left_as_it_is(text):
  assert paths.local_path("--workdir", text) == pathlib.Path(text)


@pytest.mark.parametrize("text", ["gs://bucket/run", "s3://b", "hdfs://host/x", "https://host/x.npz", "file:///x"])
@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_a_remote_path_is_refused_in_one_line(text, kind):
  with pytest.raises(errors.UserError, match=r"^config\.data\.path='.*': remote paths are not supported") as refusal:
    paths.local_path("config.data.path", kind(text))
  assert "\n" not in str(refusal.value)
