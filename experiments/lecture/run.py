"""Checks the lecture's claims by measurements (under 15 minutes on 2 CPU cores).

  python -m experiments.lecture.run

Prints the rows of the README's table and writes results.json and the figures to this folder. Tied weights are compared
at 1,000 to 60,000 images if MNIST is prepared for TensorFlow Datasets in $TFDS_DATA_DIR, otherwise at 1,000 and 4,000.
The other claims need no download. `--only=skips,checkerboards` checks these claims and keeps the other results.
"""

import json
import pathlib
import sys
import time

from ae_jax.system import cache
from experiments.lecture import architecture, figures, learning

HERE = pathlib.Path(__file__).parent
CLAIMS = (
  architecture.library,
  architecture.sizes,
  architecture.untrained,
  architecture.size_of_models,
  architecture.upsampling_costs,
  architecture.affine_decoder,
  architecture.translation,
  learning.linear_is_pca,
  learning.latent_sizes,
  learning.manifolds,
  learning.skips,
  architecture.checkerboards,
  learning.permuted_pixels,
  learning.tied_weights,
  learning.training_losses,
)


def main(arguments):
  """Checks the claims, prints the table and writes the results."""
  cache.keep_compiled_programs()
  stored = HERE / "results.json"
  selected = [name for argument in arguments for name in argument.removeprefix("--only=").split(",")]
  results = json.loads(stored.read_text(encoding="utf-8")) if selected and stored.exists() else {}
  for claim in CLAIMS:
    if not selected or claim.__name__ in selected:
      started = time.perf_counter()
      rows = [{"says": says, "measured": measured, **values} for says, measured, values in claim()]
      results[claim.__name__] = {"seconds": round(time.perf_counter() - started, 1), "rows": rows}
      for row in rows:
        print(f"| {row['says']} | {row['measured']} |", flush=True)
  results = {claim.__name__: results[claim.__name__] for claim in CLAIMS if claim.__name__ in results}
  figures.draw(results, HERE)
  for row in results.get("manifolds", {"rows": []})["rows"]:
    row.pop("picture", None)
  stored.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
  print(f"{sum(result['seconds'] for result in results.values()):.0f} s")


if __name__ == "__main__":
  main(sys.argv[1:])
