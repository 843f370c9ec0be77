"""Splits the training examples of a source: chooses the examples that are held out as test and validation set."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64, Shaped

from ae_jax import errors
from ae_jax.data import lazy_arrays, one_class, splits

TEST_SHARE = 0.2  # default of config.data.test
_SEEDS = {"test": 0, "validation": 1}
_SEEDED = ("random", "stratified", "group")  # rules that depend on a seed
_MOST_HELD_OUT = 10_000  # maximum number of examples in a drawn set, because they are kept in memory


class Options(NamedTuple):
  """The keys of `config.data` for the split into training, validation and test set."""

  split: str = "auto"  # a key of `_RULES`, or "auto"
  group: str = ""  # name of the array of groups; "" for none
  test: float = TEST_SHARE  # fraction of the examples that becomes the test set, if the source has none
  validation: float = 0.0  # fraction of the training examples that becomes the validation set; 0 for none


class Split(NamedTuple):
  """How the test and validation set were drawn, for config.json."""

  rule: str  # a key of `_RULES`, or "source" for the rule of the data source
  shares: dict[str, float]  # {"test" and "validation", if drawn: fraction of the examples}
  # {drawn set: positions of its examples in the training examples of the source}; {} for a recording
  rows: dict[str, Int64[np.ndarray, " examples"]]

  def as_json(self) -> dict[str, Any]:
    """Returns the rule and, for each drawn set, its fraction, its seed and the SHA-256 of its positions (int64)."""
    by_split = {}
    for split, share in self.shares.items():
      by_split[split] = {"share": share}
      if self.rule in _SEEDED or (split == "validation" and self.rule == "source"):
        by_split[split]["seed"] = _SEEDS[split]
      if split in self.rows:
        by_split[split]["rows_sha256"] = hashlib.sha256(self.rows[split].astype("<i8").tobytes()).hexdigest()
    return {"rule": self.rule, **by_split}


def options(split: str, group: str, test: float | int, validation: float | int, window: int) -> Options:
  """Checks and returns the keys of `config.data` that control how the data are split.

  Args:
    split: A key of `_RULES`, or "auto".
    group: Name of the array of groups, or "".
    test: Fraction of the examples in the test set.
    validation: Fraction of the examples in the validation set.
    window: Length of windows that are cut from a recording, 0 for none. A recording is always split by time.

  Raises:
    UserError: A value is invalid, or two values contradict each other.
  """
  errors.choose(dict.fromkeys(("auto", *_RULES)), split, "data.split")
  errors.check(0 < test < 1, "data.test", test, "a fraction in (0, 1)")
  errors.check(0 <= validation < 1, "data.validation", validation, "0 (none), or a fraction in (0, 1)")
  if split == "group" and not group:
    raise errors.UserError(
      "config.data.split='group': needs config.data.group, the name of the array with the group of each example"
    )
  if group and split not in ("auto", "group"):
    raise errors.UserError(f"config.data.group={group!r}: is not used with config.data.split={split!r}; remove one")
  if window and (group or split in ("stratified", "group")):
    raise errors.UserError(
      f"config.data.split={split!r}, config.data.group={group!r}: with config.data.window, recordings can only be "
      "split by time; set config.data.split='time' and config.data.group=''"
    )
  return Options(split, group, test, validation)


def check_needed(chosen: Options, arrays: Mapping[str, Any], where: str) -> None:
  """Raises UserError if a key of `config.data` has no effect, because the source already has this set."""
  for split, share, default in (("test", chosen.test, TEST_SHARE), ("validation", chosen.validation, 0.0)):
    if split in arrays and share != default:
      found = f"{len(arrays[split]):,} {split} examples"
      raise errors.UserError(
        f"config.data.{split}={share}: would hold out a {split} set from the training examples, but {where} already "
        f"has {found}; remove this key"
      )
  drawn = "test" not in arrays or chosen.validation
  if not drawn and (chosen.group or chosen.split not in ("auto", "random")):
    raise errors.UserError(
      f"config.data.split={chosen.split!r}, config.data.group={chosen.group!r}: {where} has a test set, so no examples "
      "are drawn; remove these keys, or set config.data.validation to a fraction"
    )


def of_record(shares: Mapping[str, float], given: Sequence[str], arrays: Mapping[str, Any]) -> Split | None:
  """Describes the split of a recording by time; None if no part of the recording was held out.

  Args:
    shares: {"test": fraction, "validation": fraction}.
    given: The sets that the source already had; these were not drawn.
    arrays: The arrays after the split.
  """
  drawn = {split: share for split, share in shares.items() if split in arrays and split not in given}
  return Split("time", drawn, {}) if drawn else None


def divide(
  chosen: Options,
  arrays: dict[str, Any],
  own: Bool[np.ndarray, " examples"] | None,
  normal: int | str | None,
  class_names: Sequence[str] | None,
  where: str,
) -> tuple[int | None, Split | None, list[str]]:
  """Holds out test and validation examples of a source, and keeps only training examples of one class, in place.

  A test or validation set that the source already has is not changed; `one_class.select` only checks its labels.

  Args:
    chosen: The keys of the config.
    arrays: The arrays of a source. "train_group" is the group of each training example, if `chosen.group` is set.
      Each drawn set, and the training set, gets an array "train_row", "test_row" or "validation_row" with the positions
      of its examples in the training examples of the source.
    own: Mask of the examples that the source itself holds out as test set, or None. It is used unless the config sets
      `split` or `test`.
    normal: `config.data.one_class`; see `one_class.select`.
    class_names: Name of each label, or None.
    where: Prefix of error messages.

  Returns:
    The label of the training examples that were kept (None: all labels), a description of the split (None: nothing was
    drawn), and notes for the user.

  Raises:
    UserError: The rule cannot be applied to the data, or `one_class.select` raises it.
  """
  shares = {} if "test" in arrays else {"test": chosen.test}
  arrays["train_row"] = np.arange(len(arrays["train"]))
  rule = _applied(chosen, arrays) if shares or chosen.validation else ""
  is_own = own is not None and chosen.split in ("auto", "random") and chosen.test == TEST_SHARE
  held_out = None
  if shares:
    held_out = own if is_own else _RULES[rule](arrays, chosen.test, "test", where)
  label, notes = one_class.select(normal, arrays, held_out, class_names, where)
  if chosen.validation:
    shares["validation"] = chosen.validation
    splits.hold_out(arrays, _RULES[rule](arrays, chosen.validation, "validation", where), "validation")
  rows = {split: arrays.get(f"{split}_row") for split in splits.SPLITS}
  for name in ("validation_factors", *(f"{split}_group" for split in splits.SPLITS)):
    arrays.pop(name, None)  # nothing after this needs them
  drawn = Split("source" if is_own and shares else rule, shares, {split: rows[split] for split in shares})
  return label, drawn if shares else None, notes


def _applied(chosen: Options, arrays: Mapping[str, Any]) -> str:
  """Returns `chosen.split`; "auto" becomes "group" if groups are set, "stratified" with class labels, else "random"."""
  if chosen.split != "auto":
    return chosen.split
  if chosen.group:
    return "group"
  return "random" if _classes(arrays) is None else "stratified"


def _classes(arrays: Mapping[str, Any]) -> Shaped[np.ndarray, " examples"] | None:
  """Returns the class index of each training example; None without integer labels, or if no label occurs twice."""
  labels = arrays.get("train_labels")
  if labels is None or not np.issubdtype(labels.dtype, np.integer):
    return None
  _, classes, counts = np.unique(lazy_arrays.read_all(labels), return_inverse=True, return_counts=True)
  return classes if counts.max(initial=0) > 1 else None


def _count(examples: int, share: float) -> int:
  """Returns the number of examples to draw, from 1 to `_MOST_HELD_OUT`."""
  return min(splits.share_of(examples, share), _MOST_HELD_OUT)


def _random(arrays: Mapping[str, Any], share: float, split: str, where: str) -> Bool[np.ndarray, " examples"]:
  del where
  count = len(arrays["train"])
  return splits.drawn(count, _count(count, share), _SEEDS[split])


def _stratified(arrays: Mapping[str, Any], share: float, split: str, where: str) -> Bool[np.ndarray, " examples"]:
  """Returns the mask of a random fraction of each class; at least one example of each class is not selected.

  The shuffled examples are sorted by class, and every (1 / share)-th of them is selected.
  """
  classes = _classes(arrays)
  if classes is None:
    raise errors.UserError(
      f"config.data.split='stratified': {where} has no integer training labels, or no label occurs twice; set "
      "config.data.split='random'"
    )
  examples, generator = len(classes), np.random.default_rng(_SEEDS[split])
  order = np.lexsort((generator.permutation(examples), classes))
  steps = (np.arange(examples + 1) * _count(examples, share) + generator.integers(examples)) // examples
  mask = np.zeros(examples, bool)
  mask[order] = np.diff(steps) > 0
  firsts = order[np.unique(classes[order], return_index=True)[1]]
  emptied = ~np.isin(classes[firsts], classes[~mask])
  mask[firsts[emptied]] = False
  if not mask.any():
    mask[order[np.flatnonzero(np.diff(classes[order]) == 0)[0]]] = True
  return mask


def _by_group(arrays: Mapping[str, Any], share: float, split: str, where: str) -> Bool[np.ndarray, " examples"]:
  """Returns a mask that selects random whole groups, together at most the fraction `share` of the examples.

  If the first random group alone exceeds this fraction, the smallest group is selected.
  """
  _, groups, sizes = np.unique(arrays["train_group"], return_inverse=True, return_counts=True)
  if len(sizes) < 2:
    raise errors.UserError(
      f"config.data.split='group': the training examples of {where} are all in one group, so none can be held out for "
      f"the {split} set; use more groups, or another config.data.split"
    )
  count = _count(len(groups), share)
  order = np.random.default_rng(_SEEDS[split]).permutation(len(sizes))
  chosen = order[np.cumsum(sizes[order]) <= count]
  return np.isin(groups, chosen if len(chosen) else [sizes.argmin()])


def _by_time(arrays: Mapping[str, Any], share: float, split: str, where: str) -> Bool[np.ndarray, " examples"]:
  del split, where
  examples = len(arrays["train"])
  return np.arange(examples) >= examples - _count(examples, share)


# name -> function (arrays, share, split, prefix of error messages) that returns the mask of the examples to hold out
_RULES = {"random": _random, "stratified": _stratified, "group": _by_group, "time": _by_time}
