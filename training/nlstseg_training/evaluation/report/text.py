"""The words of the report."""

from __future__ import annotations

FEW_PATIENTS = 30
"""Number of patients below which the report says that there are few."""

UNDEFINED = "n/a"
"""Stands for a figure that is not defined."""

DEFINITIONS = (
    "Intervals are the 2.5th and 97.5th percentile of 10,000 bootstrap resamples of the patients; n/a stands for a figure "
    "that is not defined.",
    "Resampling shows no spread where all patients agree: 1.00 (1.00-1.00) of a few lesions does not say that none will be "
    "missed.",
    "Dice = 2TP / (2TP + FP + FN) and IoU = TP / (TP + FP + FN) are counted in voxels of the whole case in 3D. A case in "
    "which reference and prediction are both empty is left out and counted; one in which only one of them is counts 0.",
    "NSD is the normalised surface Dice: the share of both surfaces that lies within 1 mm (primary) or 2 mm of the other one. "
    "A surface is a mesh through the middle between marked and unmarked voxels, smoothed by half a voxel, and its parts count by "
    "their area. HD95 is the larger one of the distances within which 95 % of either surface lie, ASSD their mean distance, both "
    "of the cases in which neither mask is empty.",
    "A reference lesion is a label value of the annotation, a mark a 26-connected component of the voxels above the "
    "threshold that has the minimum volume.",
    "Lenient: a lesion is found when a mark shares a voxel with it. Strict: lesions and marks are paired one to one "
    "(Hungarian method), with an IoU of at least 0.1. Further marks on a lesion that was found are ignored.",
    "A mark outside touches no lesion that was found. Not every nodule of a chest is annotated, so it is “outside the "
    "annotation” and not a proven false positive; PPV and F1 count it as one.",
    "The Dice of a lesion is taken with the union of the marks that touch it. Lesions are grouped by the diameter of the "
    "sphere of their volume; the lower end of a group belongs to it.",
    "FROC: a mark's score is the highest probability in it, its place its centre of mass; it hits a lesion when that lies "
    "in the lesion or within its radius. Only marks of the threshold above are candidates. The sensitivity is the highest "
    "that some score reaches with no more marks outside than the rate; CPM is the mean at 1/8, 1/4, 1/2, 1, 2, 4 and 8 per "
    "scan.",
    "Volume error = (predicted - reference) / reference, of the lesions found by the lenient rule. Bland-Altman: mean "
    "difference and 1.96 standard deviations to either side.",
    "Chests are searched in the lung field that segmentation finds by itself, crops everywhere.",
)
"""Sentences under the figures."""

PUBLISHED_NOTE = (
    "Only to compare with the published number, and of no other use: each axial slice for itself, slices without tumour left out "
    "(false positives there cost nothing), logit instead of probability above 0.5, and the mean over batches of 16 slices of the "
    "mean in each batch. The published network's best epoch was chosen on the same slices."
)
