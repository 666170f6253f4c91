"""What a CT is, and the geometry of its voxels."""

from NLSTSegLib.volume.ct import CtVolume, from_canonical, to_canonical

__all__ = ["CtVolume", "from_canonical", "to_canonical"]
