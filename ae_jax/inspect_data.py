"""Prints what a file or folder of data contains, and the command that trains on it.

  ae_jax data photos
  ae_jax data measurements.npz --out=examples.png
  python -m ae_jax.inspect_data digits

A folder of .npy files that are long recordings [T, C] is described as such, with their lengths and channels.
Prints the kind of the data, the sizes and modes of images, the range of the values, labels, missing values, exact
duplicates, constant columns or pixels, and damaged files. All examples are read, and it is checked that the data can be
loaded with the options in the printed command. --out writes a picture of random examples; without it, no file is
written. If the data cannot be used, the message contains the reason, and the exit status is 1.
"""

from typing import Any

from absl import flags

from ae_jax import cli, errors
from ae_jax.system import paths

flags.adopt_module_key_flags(cli)

_OUT = flags.DEFINE_string("out", "", "PNG file to write with a picture of random examples; its name must end in .png.")


def main(arguments: list[str]) -> None:
  """Describes the data at a path."""
  with cli.user_errors():
    if len(arguments) > 1:
      cli.fail(f"unexpected argument {arguments[1]!r}; give one file or folder", cli.WRONG_USAGE)
    out = paths.local_path("--out", _OUT.value) if _OUT.value else None
    if out and out.suffix != ".png":
      cli.fail(f"--out={out}: must end in .png", cli.WRONG_INPUT)
    path = str(paths.local_path("PATH", arguments[0]))
    from ae_jax import data
    from ae_jax.data import detection, inspection, record_inspection, remarks

    name, result = "npy", record_inspection.inspect(path)
    is_folder_of_records = result is not None
    if is_folder_of_records:
      print(f"{path}: read as recordings, config.data.name={name} with config.data.window", flush=True)
    else:
      found = detection.detect(path)
      name = found.name
      print(f"{path}: read as config.data.name={name}", flush=True)
      result = inspection.inspect(found, path)
    print("\n".join(result.lines), flush=True)
    given = "" if path == name else path
    dataset = data.load(name, given, **({"range": "unit"} | result.options))  # checks the printed command
    if dataset.schema and dataset.shape[0] != len(dataset.schema.columns):
      print(f"inputs: {remarks.examples_of(dataset.shape, len(dataset.schema.columns))}")
    if out:
      from ae_jax.report import contact_sheet

      with errors.convert_os_errors(f"--out={out}"):
        contact_sheet.draw(out, dataset, path)
      print(f"picture of examples: {out}")
    if is_folder_of_records:
      print(f"to train: {inspection.record_command(name, given, result.recorded)}")
      return
    print("\n".join(_commands(name, given, result)))


def _commands(name: str, path: str, result: Any) -> list[str]:
  """Returns lines with the commands that train on rows and on windows of them; windows are first for regular times."""
  from ae_jax import data
  from ae_jax.data import inspection, record_times

  of_rows = inspection.command(name, path, result)
  if result.recorded is None:
    return [f"to train: {of_rows}"]
  try:
    dataset = data.load(name, path, **result.recorded)
  except errors.UserError as error:
    fault = f"as a recording, windows of {result.recorded['window']} steps cannot be cut: {error}"
    return [f"to train: {of_rows}", fault]
  of_windows = inspection.record_command(name, path, result.recorded)
  if dataset.test_times is not None and record_times.are_regular(dataset.test_times):
    return [f"to train, as a recording, in windows: {of_windows}", f"if each row is an example: {of_rows}"]
  return [f"to train: {of_rows}", f"as a recording, in windows: {of_windows}"]


def run() -> None:
  """Runs `ae_jax data`."""
  cli.run_on_arguments(main, "ae_jax data photos")


if __name__ == "__main__":
  run()
