"""What a CT is, and the geometry of its voxels."""
