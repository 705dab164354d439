"""Converts predictions to files for other programs: rigged GLB, BVH, AMASS's .npz, and plain OBJ."""
