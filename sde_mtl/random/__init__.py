"""Counter-based normals: the number at (seed, path, step, component) depends on nothing else."""
