"""Many members of a family of runs, each with a latent size, a seed and numbers of its own, in few programs."""
