"""Connected components of a mask and their boxes: the only caller of that filter. All are 26-connected."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from NLSTSegLib.volume.regions import Box, bounding_box


def component_labels(mask: np.ndarray) -> np.ndarray:
    """Labels 1, 2, ... of the components of ``mask`` (bool ``[k, j, i]``) in the order of their first voxels, 0 outside."""
    import SimpleITK as sitk

    components = sitk.ConnectedComponentImageFilter()
    components.FullyConnectedOn()
    components.SetNumberOfWorkUnits(1)  # a lesion is small: sharing it out among threads takes longer than the work
    return sitk.GetArrayFromImage(components.Execute(sitk.GetImageFromArray(mask.astype(np.uint8))))


def touching(mask: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """The components of ``mask`` with a voxel in ``seed``; all three are bool ``[k, j, i]``."""
    labels = component_labels(mask)
    chosen = np.zeros(int(labels.max(initial=0)) + 1, bool)
    chosen[labels[seed]] = True
    chosen[0] = False
    return chosen[labels]


def components_by_size(mask: np.ndarray) -> list[np.ndarray]:
    """The components of ``mask`` (bool ``[k, j, i]``) as masks of its shape, the largest first; the first voxel decides a tie."""
    labels = component_labels(mask)
    sizes = np.bincount(labels.ravel())[1:]
    return [labels == label + 1 for label in np.argsort(-sizes, kind="stable")]


def boxed_components(mask: np.ndarray, least_voxels: float) -> Iterator[tuple[Box, np.ndarray]]:
    """Bounding box and mask (bool, of its shape) of each component of ``mask`` with ``least_voxels`` or more."""
    import SimpleITK as sitk

    if not mask.any():
        return
    # Labels take four bytes a voxel: find them only where there is something.
    used = bounding_box(mask)
    image = sitk.ConnectedComponent(sitk.GetImageFromArray(mask[used].view(np.uint8)), True)
    # The view comes first: once the filter shares the image, SimpleITK would copy it to hand out a view.
    labels = sitk.GetArrayViewFromImage(image)
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.ComputePerimeterOff()
    shapes.Execute(image)
    for label in shapes.GetLabels():
        if shapes.GetNumberOfPixels(label) < least_voxels:
            continue
        i, j, k, size_i, size_j, size_k = shapes.GetBoundingBox(label)
        inner = (slice(k, k + size_k), slice(j, j + size_j), slice(i, i + size_i))
        k, j, i = (start + side.start for start, side in zip((k, j, i), used, strict=True))
        box = (slice(k, k + size_k), slice(j, j + size_j), slice(i, i + size_i))
        yield box, np.asarray(labels[inner] == label)
