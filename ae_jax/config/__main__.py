"""Lists the shipped configs, one line each.

  ae_jax configs
  ae_jax train --config=cnn
  ae_jax describe --config=cnn:mnist

Pass a name to --config, optionally followed by a colon and the name of a data set.
"""

import sys

from ae_jax.config import shipped


def run() -> None:
  """Prints the name and the summary of each shipped config."""
  if sys.argv[1:]:
    print(__doc__.strip())
    sys.exit(0 if sys.argv[1:] in (["--help"], ["-h"]) else 2)
  summaries = shipped.summaries()
  width = max(map(len, summaries))
  for name, summary in summaries.items():
    print(f"{name:{width}}  {summary}")


if __name__ == "__main__":
  run()
