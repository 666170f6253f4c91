"""The words and the looks of the report."""

from __future__ import annotations

from nlstseg_training.evaluation.report.plots import PREDICTED_COLOR, REFERENCE_COLOR

FEW_PATIENTS = 30
"""Below, the report says that there are few."""

UNDEFINED = "n/a"
"""Stands for a figure that is not defined."""

DEFINITIONS = (
    "Intervals are the 2.5th and 97.5th percentile of 1000 bootstrap resamples of the patients; n/a stands for a figure "
    "that is not defined.",
    "Resampling shows no spread where all patients agree: 1.00 (1.00-1.00) of a few lesions does not say that none will be "
    "missed.",
    "Dice = 2TP / (2TP + FP + FN) and IoU = TP / (TP + FP + FN) are counted in voxels of the whole case in 3D. A case in "
    "which reference and prediction are both empty is left out and counted; one in which only one of them is counts 0.",
    "NSD is the normalised surface Dice: the share of both surfaces that lies within 1 mm (primary) or 2 mm of the other one. "
    "Surfaces are known to half a voxel, so with thick slices it is generous.",
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

STYLE = f"""
body {{ font: 15px/1.45 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: #1f2933; max-width: 1180px;
  margin: 24px auto; padding: 0 20px; background: #fff; }}
h1 {{ font-size: 25px; margin: 0 0 4px; }}
h2 {{ font-size: 18px; margin: 32px 0 8px; padding-bottom: 4px; border-bottom: 1px solid #d9dee4; }}
p {{ margin: 6px 0; max-width: 900px; }}
.warning {{ background: #fff4e5; border-left: 4px solid {PREDICTED_COLOR}; padding: 6px 10px; }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); gap: 10px; margin: 16px 0; }}
.tiles div {{ border: 1px solid #d9dee4; border-radius: 6px; padding: 10px 12px; }}
.tiles b {{ font-size: 25px; }}
.tiles i {{ font-style: normal; color: #52606d; margin-left: 6px; }}
.tiles span {{ display: block; color: #52606d; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 13.5px; margin: 6px 0; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 4px 10px; text-align: right; border-bottom: 1px solid #e8ebee; }}
td {{ white-space: nowrap; }}
th {{ font-weight: 600; background: #f5f7f9; vertical-align: bottom; }}
th:first-child, td:first-child {{ text-align: left; }}
figure {{ margin: 0; }}
figcaption {{ font-size: 13px; color: #52606d; }}
.plots {{ display: flex; flex-wrap: wrap; gap: 20px; margin-top: 12px; }}
.plots img {{ width: 540px; max-width: 100%; }}
.pictures {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(180px, 1fr)); gap: 12px; margin-top: 8px; }}
.pictures img {{ width: 100%; background: #000; }}
.pictures figcaption {{ overflow-wrap: anywhere; }}
.reference {{ color: {REFERENCE_COLOR}; font-weight: 600; }}
.predicted {{ color: {PREDICTED_COLOR}; font-weight: 600; }}
summary {{ cursor: pointer; }}
"""
"""The page's style sheet."""
