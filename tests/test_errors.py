"""Error messages, and the checks of config values."""

import numpy as np
import pytest

from ae_jax import errors

HUGE = 10**5000  # more digits than Python prints, also in the names of parametrized tests


def test_user_error_is_one_line():
  assert str(errors.UserError("a\nb.png: not\u2028a readable image")) == "a b.png: not a readable image"


@pytest.mark.parametrize(
  "value", [np.zeros((3, 30)), "a\nb", "x" * 5000, pytest.param(HUGE, id="huge"), (HUGE,), {"a": {}}, 3, "relu"]
)
def test_value_is_formatted_in_one_short_line(value):
  line = errors.format_value(value)
  assert len(line.splitlines()) == 1
  assert len(line) <= 80


def test_short_value_is_formatted_as_its_repr():
  for value in (3, 0.5, "relu", (256,), None, {"epochs": 1}):
    assert errors.format_value(value) == repr(value)


@pytest.mark.parametrize("name", [["relu"], {"a": 1}, {1}, 3, None, float("nan"), "", np.zeros(2), ("relu",), "\n"])
def test_choose_rejects_unknown_names_and_other_types(name):
  with pytest.raises(errors.UserError, match=r"^config\.model\.activation=.* is unknown; .*known: gelu, relu$"):
    errors.choose({"relu": 1, "gelu": 2}, name, "model.activation")


@pytest.mark.parametrize("option", ["table", "section", "name", "args", "x\ny"])
def test_call_rejects_options_named_like_its_own_parameters(option):
  def build(*, latent):
    return latent

  assert errors.call({"dense": build}, "model", "dense", latent=3) == 3
  with pytest.raises(errors.UserError, match=r"is not an option of 'dense'; .*known: latent$"):
    errors.call({"dense": build}, "model", "dense", latent=3, **{option: 1})


@pytest.mark.parametrize(
  ("value", "expected"),
  [
    *((number, True) for number in (0, -1.5, 3.4e38)),
    *((other, False) for other in (1e300, float("nan"), float("inf"), True, "1", 1j, None, np.zeros(2))),
    pytest.param(10**400, False, id="huge"),
  ],
)
def test_is_number_accepts_numbers_within_float32(value, expected):
  assert errors.is_number(value) is expected


@pytest.mark.parametrize("value", [0, -1, 2**31, pytest.param(HUGE, id="huge"), True, 1.0, "1", None, np.int64(3)])
def test_check_positive_accepts_positive_int32_only(value):
  errors.check_positive("epochs", 2**31 - 1)
  with pytest.raises(errors.UserError, match=r"^config\.epochs=.*: must be an integer from 1"):
    errors.check_positive("epochs", value)
  with pytest.raises(errors.UserError, match=r"^config\.widths=.*: must be a tuple of integers, each 1 or more"):
    errors.check_all_positive("widths", (value,))


@pytest.mark.parametrize("values", [(), [3], 3, (3,) * 101, np.array([3]), None])
def test_check_all_positive_accepts_a_tuple_of_1_to_100_layers(values):
  errors.check_all_positive("widths", (3,) * 100)
  with pytest.raises(errors.UserError, match="must be a tuple of integers"):
    errors.check_all_positive("widths", values)
