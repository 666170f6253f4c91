"""Two reviewed segmentations of one patient compared, kept in the scene: which lesions are one, where each would lie."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from NLSTSegLib.errors import InputError
from NLSTSegLib.followup.growth import Growth, growth
from NLSTSegLib.followup.matching import Kind
from NLSTSegLib.followup.registration import Registration
from NLSTSegLib.followup.table import growth_text
from NLSTSegLib.followup.time_point import FoundLesion, TimePoint
from NLSTSegLib.followup.tracks import follow
from NLSTSegLib.followup.volume_error import volume_cv
from NLSTSegLib.lesions.coding import segment_color
from NLSTSegLib.lesions.measure import sphere_diameter_mm
from NLSTSegLib.scene.lesion_list import LesionList
from NLSTSegLib.scene.lesion_state import lesion_state
from NLSTSegLib.scene.review import probability_of
from NLSTSegLib.scene.volumes import LPS_FROM_RAS, ct_from_volume_node
from NLSTSegLib.scene.voxels import volume_of

if TYPE_CHECKING:
    from slicer import vtkMRMLScene, vtkMRMLScriptedModuleNode, vtkMRMLSegmentationNode

NODE_NAME = "NLSTSeg follow-up"

BASELINE_ROLE, FOLLOWUP_ROLE = "Baseline", "FollowUp"
"""References of the node to the two segmentations."""

TRACKS_PARAMETER, PLACES_PARAMETER, REFUSAL_PARAMETER, DAYS_PARAMETER = "Tracks", "Places", "Refusal", "Days"

COLOR_TAG = "NLSTSeg.OwnColor"
"""Segment tag with the colour that it had before the follow-up."""


@dataclass(frozen=True)
class TrackRow:
    """A track as it is shown, with the lesions as they are now."""

    number: int
    kind: str
    by_hand: bool
    earlier: tuple[str, ...]
    """Segments of the baseline."""
    later: tuple[str, ...]
    names: tuple[str, str]
    volumes_mm3: tuple[float | None, float | None]
    growth: Growth | None
    probability: float | None
    """The model's largest one around the place in the CT that lacks it, as the CTs were registered."""
    told: str
    """The change with its interval, in words; of a lesion that one CT lacks, how sure the model was of it, and is there."""


class SceneFollowUp:
    """The comparison of two segmentations. Both lists of lesions are looked at anew by :meth:`update`."""

    def __init__(self, baseline: vtkMRMLSegmentationNode, followup: vtkMRMLSegmentationNode) -> None:
        """Take up the comparison that the scene holds of these two, or begin one.

        Raises :class:`InputError` for the same segmentation twice, two on the same CT, and one without its CT.
        """
        if baseline is followup or volume_of(baseline) is volume_of(followup):
            raise InputError("the baseline and the follow-up are of the same CT; choose the segmentations of two CTs")
        self.nodes = (baseline, followup)
        self._node = _node_of(baseline, followup)
        self._lists = (LesionList(baseline), LesionList(followup))
        self.update()

    @property
    def refusal(self) -> str | None:
        """Why the CTs are not registered: empty where they are, ``None`` before they were compared."""
        return self._node.GetParameter(REFUSAL_PARAMETER) if self._node.GetParameter(TRACKS_PARAMETER) else None

    @property
    def is_registered(self) -> bool:
        """Whether pairs were made by a registration."""
        return self.refusal == ""

    @property
    def days(self) -> float | None:
        """Days between the CTs; ``None`` where nobody has said."""
        text = self._node.GetParameter(DAYS_PARAMETER)
        return float(text) if text else None

    @days.setter
    def days(self, days: float | None) -> None:
        self._node.SetParameter(DAYS_PARAMETER, repr(float(days)) if days else "")

    def update(self) -> None:
        """Look at the lesions anew, whoever changed them."""
        for lesions in self._lists:
            lesions.update()

    def compare(self, registration: Registration) -> None:
        """Match the lesions by a registration of the two CTs; pairs that were made by hand stay."""
        self.update()
        points = [self._point(n) for n in (0, 1)]
        ids = [list(lesions.regions) for lesions in self._lists]
        hand = [
            (tuple(ids[0].index(one) for one in row["earlier"]), tuple(ids[1].index(one) for one in row["later"]))
            for row in self._tracks()
            if row["by"] == "hand" and set(row["earlier"]) <= set(ids[0]) and set(row["later"]) <= set(ids[1])
        ]
        tracks = follow(points, [registration], by_hand=[hand])
        places: dict[str, list[float]] = {}
        rows = []
        for track in tracks:
            step = track.steps[0]
            assert step is not None, "there is one step"
            earlier, later = ([ids[n][m] for m in track.members[n]] for n in (0, 1))
            by = "hand" if step.by_hand else ""
            row = {"kind": str(step.kind), "by": by, "earlier": earlier, "later": later, "probability": step.probability}
            rows.append(row)
            if registration.is_accepted:
                for n, own, move in ((0, earlier, registration.forward), (1, later, registration.backward)):
                    for segment_id in own:
                        sizes = self._lists[n].sizes(segment_id)
                        if sizes is not None:
                            places[f"{n}/{segment_id}"] = move(np.array(sizes.centroid_lps_mm)).tolist()
        self._node.SetParameter(REFUSAL_PARAMETER, registration.refusal)
        self._node.SetParameter(PLACES_PARAMETER, json.dumps(places))
        self._keep(rows)

    def rows(self) -> list[TrackRow]:
        """The tracks, with the sizes of the last :meth:`update`. Lesions that were added since stand alone."""
        there = [set(lesions.regions) for lesions in self._lists]
        made: list[tuple[list[str], list[str], str, bool, float | None]] = []
        seen: list[set[str]] = [set(), set()]
        for row in self._tracks():
            earlier, later = ([one for one in row[side] if one in there[n]] for n, side in enumerate(("earlier", "later")))
            seen[0] |= set(earlier)
            seen[1] |= set(later)
            if earlier or later:
                made.append((earlier, later, row["kind"], row["by"] == "hand", row.get("probability")))
        made += [([one], [], str(Kind.NOT_COMPARED), False, None) for one in self._lists[0].regions if one not in seen[0]]
        made += [([], [one], str(Kind.NOT_COMPARED), False, None) for one in self._lists[1].regions if one not in seen[1]]
        return [self._row(number, *each) for number, each in enumerate(made, start=1)]

    def pair(self, rows: Sequence[TrackRow]) -> None:
        """Make one track of these, by hand. Raises :class:`InputError` unless lesions of both CTs are among them."""
        earlier = [one for row in rows for one in row.earlier]
        later = [one for row in rows for one in row.later]
        if not earlier or not later:
            raise InputError("choose a row with a lesion of the baseline and one with a lesion of the follow-up")
        kind = Kind.SAME if len(earlier) == len(later) == 1 else Kind.MERGED if len(earlier) > len(later) else Kind.SPLIT
        chosen = {row.number for row in rows}
        kept: list[dict[str, Any]] = []
        for row in self.rows():
            if row.number == rows[0].number:
                kept.append({"kind": str(kind), "by": "hand", "earlier": earlier, "later": later})
            elif row.number not in chosen:
                kept.append(_as_dict(row))
        self._keep(kept)

    def unpair(self, row: TrackRow) -> None:
        """Let the lesions of the two CTs stand alone, by hand. Raises :class:`InputError` where they do already."""
        if not (row.earlier and row.later):
            raise InputError("this lesion has no partner; choose a row with both")
        kept = []
        for each in self.rows():
            if each.number != row.number:
                kept.append(_as_dict(each))
                continue
            kept += [{"kind": str(Kind.NOT_FOUND), "by": "hand", "earlier": [one], "later": []} for one in row.earlier]
            kept += [{"kind": str(Kind.NEW), "by": "hand", "earlier": [], "later": [one]} for one in row.later]
        self._keep(kept)

    def places_ras_mm(self, row: TrackRow) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Where the track lies in each CT, in its own RAS; where it would lie in the one that lacks it, if that is known."""
        known = json.loads(self._node.GetParameter(PLACES_PARAMETER) or "{}")
        found: list[np.ndarray | None] = []
        for n, own, others in ((0, row.earlier, row.later), (1, row.later, row.earlier)):
            sizes = [one for one in (self._lists[n].sizes(segment_id) for segment_id in own) if one is not None]
            if sizes:
                largest = max(sizes, key=lambda one: one.volume_mm3)
                place = np.mean(largest.long_axis_ends_lps_mm, axis=0)
            else:
                place = next((np.array(known[key]) for key in (f"{1 - n}/{one}" for one in others) if key in known), None)
            found.append(None if place is None else LPS_FROM_RAS @ place)
        return found[0], found[1]

    def color(self) -> None:
        """Give both halves of every track one colour; the own colours come back with :meth:`uncolor`."""
        import vtk

        for row in self.rows():
            for node, ids in zip(self.nodes, (row.earlier, row.later), strict=True):
                for segment_id in ids:
                    segment = node.GetSegmentation().GetSegment(segment_id)
                    if not segment.GetTag(COLOR_TAG, vtk.mutable("")):
                        segment.SetTag(COLOR_TAG, " ".join(repr(part) for part in segment.GetColor()))
                    if tuple(segment.GetColor()) != segment_color(row.number):
                        segment.SetColor(*segment_color(row.number))

    def uncolor(self) -> None:
        """Give the segments their own colours back."""
        import vtk

        for node in self.nodes:
            for segment_id in node.GetSegmentation().GetSegmentIDs() if node.GetScene() is not None else ():
                segment, text = node.GetSegmentation().GetSegment(segment_id), vtk.mutable("")
                if segment.GetTag(COLOR_TAG, text):
                    segment.SetColor(*map(float, str(text).split()))
                    segment.RemoveTag(COLOR_TAG)

    def _row(
        self, number: int, earlier: list[str], later: list[str], kind: str, by_hand: bool, probability: float | None
    ) -> TrackRow:
        volumes = [self._volume_mm3(0, earlier), self._volume_mm3(1, later)]
        names = [
            " + ".join(node.GetSegmentation().GetSegment(one).GetName() for one in ids)
            for node, ids in zip(self.nodes, (earlier, later), strict=True)
        ]
        grown = None
        if volumes[0] and volumes[1]:
            slices = [max(volume_of(node).GetSpacing()) for node in self.nodes]
            cvs = [volume_cv(sphere_diameter_mm(volumes[n] or 0), slices[n], slices[1 - n]) for n in (0, 1)]
            grown = growth(volumes[0], volumes[1], self.days, cvs[0], cvs[1])
        told = growth_text(grown) if grown else self._told_of_one(earlier, later, probability)
        sides = tuple(earlier), tuple(later), (names[0], names[1]), (volumes[0], volumes[1])
        return TrackRow(number, kind, by_hand, *sides, grown, probability, told)

    def _told_of_one(self, earlier: list[str], later: list[str], probability: float | None) -> str:
        """Of a lesion that one CT lacks: the score that it has, and what the model gave at its place in the other."""
        scores = [
            lesion_state(self.nodes[n], one, self._lists[n].regions[one]).score
            for n, ids in enumerate((earlier, later))
            for one in ids
        ]
        known = [score for score in scores if score is not None]
        told = [f"score {max(known):.2f}"] if known else []
        if probability is not None:
            told.append(f"probability at its place {probability:.2f}")
        return "; ".join(told)

    def _volume_mm3(self, n: int, ids: list[str]) -> float | None:
        sizes = [self._lists[n].sizes(one) for one in ids]
        return sum(one.volume_mm3 for one in sizes if one is not None) or None

    def _point(self, n: int) -> TimePoint:
        lesions, node = self._lists[n], self.nodes[n]
        ct = ct_from_volume_node(volume_of(node))
        found = []
        for label, (segment_id, region) in enumerate(lesions.regions.items(), start=1):
            sizes = lesions.sizes(segment_id)
            if sizes is None:
                name = node.GetSegmentation().GetSegment(segment_id).GetName()
                raise InputError(f"'{name}' of '{node.GetName()}' has no voxels; delete it, or undo")
            found.append(FoundLesion(label, segment_id, None, region, sizes))
        return TimePoint(ct, tuple(found), probability_of(node), "review")

    def _tracks(self) -> list[dict[str, Any]]:
        return list(json.loads(self._node.GetParameter(TRACKS_PARAMETER) or "[]"))

    def _keep(self, rows: list[dict[str, Any]]) -> None:
        self._node.SetParameter(TRACKS_PARAMETER, json.dumps(rows))


def _as_dict(row: TrackRow) -> dict[str, Any]:
    by = "hand" if row.by_hand else ""
    sides = {"earlier": list(row.earlier), "later": list(row.later)}
    return {"kind": row.kind, "by": by, **sides, "probability": row.probability}


def _node_of(baseline: vtkMRMLSegmentationNode, followup: vtkMRMLSegmentationNode) -> vtkMRMLScriptedModuleNode:
    """The node that keeps the comparison of these two in the scene."""
    for node in follow_up_nodes(baseline.GetScene()):
        if node.GetNodeReference(BASELINE_ROLE) is baseline and node.GetNodeReference(FOLLOWUP_ROLE) is followup:
            return node
    node = baseline.GetScene().AddNewNodeByClass("vtkMRMLScriptedModuleNode", NODE_NAME)
    node.SetHideFromEditors(True)
    node.SetNodeReferenceID(BASELINE_ROLE, baseline.GetID())
    node.SetNodeReferenceID(FOLLOWUP_ROLE, followup.GetID())
    return node


def follow_up_nodes(scene: vtkMRMLScene) -> list[vtkMRMLScriptedModuleNode]:
    """Those of the scene, also of one that was loaded."""
    kind = "vtkMRMLScriptedModuleNode"
    nodes = (scene.GetNthNodeByClass(n, kind) for n in range(scene.GetNumberOfNodesByClass(kind)))
    return [node for node in nodes if node.GetNodeReference(BASELINE_ROLE) and node.GetNodeReference(FOLLOWUP_ROLE)]
