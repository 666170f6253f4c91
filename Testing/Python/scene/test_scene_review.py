"""The state of a review in the scene: decisions, undo, what is kept, saving and loading, two reviews side by side."""

import tempfile
import unittest
from dataclasses import fields
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from helpers.example_results import oblique_direction
from helpers.mrml_nodes import add_transform, add_volume, rigid_motion
from helpers.review_scene import FAINT, LARGE, ReviewTestCase, begin, ct_with_balls, soft_result, tags_of, voxels_of, world_ras_mm
from NLSTSegLib.errors import InputError
from NLSTSegLib.review.state import STATE_TAGS, LesionState, Origin, Status, state_of_tags, tags_of_state
from NLSTSegLib.scene.adding import add_lesion, find_lesion_at
from NLSTSegLib.scene.correction import delete_lesion
from NLSTSegLib.scene.editor import LesionEditor
from NLSTSegLib.scene.lesion_state import add_seconds_in_focus, lesion_state, show_by_status
from NLSTSegLib.scene.review import (
    PROBABILITY_ROLE,
    PROPOSAL_ROLE,
    card_of,
    probability_of,
    proposals_of,
    resume_review,
    reviews_of,
    run_threshold,
    start_review,
)
from NLSTSegLib.scene.segmentation_file import write_segmentation_node
from NLSTSegLib.scene.segmentations import segmentation_from_result
from NLSTSegLib.scene.threshold import ThresholdDrag
from NLSTSegLib.scene.voxels import volume_of
from slicer_stand_in.mrml_host import MrmlTestCase, mrml_scene

texts = st.text(st.characters(exclude_characters=":|", include_characters=" ", categories=["L", "N", "P", "S"]), max_size=12).map(
    str.strip
)
keys = st.lists(st.from_regex(r"run[1-9]/Lesion_[0-9]{2}", fullmatch=True), max_size=3, unique=True).map(tuple)
unit = st.none() | st.integers(0, 1000).map(lambda n: n / 1000)

states = st.builds(
    LesionState,
    status=st.sampled_from(Status),
    origin=st.sampled_from(Origin),
    voxels=st.sampled_from(["", "8a8b92abac32da49"]),
    reader=texts,
    seconds=st.integers(0, 10**6).map(lambda n: n / 10),
    score=unit,
    threshold=unit,
    model=texts,
    weights_sha256=st.sampled_from(["", "ab" * 32]),
    run=st.sampled_from(["run1", "run2"]),
    proposals=keys,
    replaces=keys,
)


class TagsTest(unittest.TestCase):
    @given(states)
    def test_state_survives_its_tags(self, state):
        tags = tags_of_state(state)
        self.assertEqual(set(tags), set(STATE_TAGS))
        self.assertEqual(len(tags), len(fields(LesionState)))
        self.assertFalse([value for value in tags.values() if set(value) & set(":|\n")])
        self.assertEqual(state_of_tags({tag: value for tag, value in tags.items() if value}, "Lesion 01"), state)

    def test_what_may_not_stand_in_a_tag_is_replaced(self):
        tags = tags_of_state(LesionState(Status.NEW, Origin.MODEL, reader="Dr. A: B|C\nD"))
        self.assertEqual(tags["NLSTSeg.Reader"], "Dr. A_ B_C D")

    def test_segment_without_a_status_is_new_if_a_model_made_it_else_someones_own_work(self):
        self.assertEqual(state_of_tags({}, "x"), LesionState(Status.EDITED, Origin.MANUAL))
        from_file = state_of_tags({"NLSTSeg.Model": "m 1", "NLSTSeg.Score": "0.930"}, "x")
        self.assertEqual(from_file, LesionState(Status.NEW, Origin.MODEL, model="m 1", score=0.93))

    def test_tag_that_cannot_be_read_is_named(self):
        for tags in ({"NLSTSeg.Status": "done"}, {"NLSTSeg.Seconds": "long"}, {"NLSTSeg.Origin": "?"}):
            with self.assertRaisesRegex(InputError, "'Lesion 07'.*remove that tag"):
                state_of_tags(tags, "Lesion 07")


class BeginTest(ReviewTestCase):
    def test_every_lesion_is_new_and_says_what_proposed_it(self):
        self.assertEqual(len(self.result.lesions), 3)
        for lesion in self.result.lesions:
            segment_id = f"Lesion_{lesion.label:02d}"
            state = lesion_state(self.node, segment_id)
            self.assertEqual((state.status, state.origin, state.is_reviewed), (Status.NEW, Origin.MODEL, False))
            self.assertAlmostEqual(state.score, lesion.score, places=3)
            self.assertEqual((state.threshold, state.model, state.weights_sha256), (0.5, "x published", "ab" * 32))
            self.assertEqual(state.proposals, (f"run1/{segment_id}",))

    def test_map_and_proposals_are_kept_unseen_on_the_grid_of_the_ct(self):
        np.testing.assert_array_equal(probability_of(self.node), self.result.probability)
        for role in (PROBABILITY_ROLE, PROPOSAL_ROLE):
            kept = self.node.GetNodeReference(role + "run1")
            self.assertTrue(kept.GetHideFromEditors() and kept.GetSaveWithScene())
            self.assertIsNone(kept.GetDisplayNode())
        proposals = self.node.GetNodeReference(PROPOSAL_ROLE + "run1")
        np.testing.assert_equal(self.voxels(proposals), self.voxels())

    def test_card_of_the_model_is_kept(self):
        card = card_of(self.node)
        self.assertEqual((card["name"], card["weights_sha256"]), ("x", "ab" * 32))
        self.assertEqual(card["licence"], self.result.card.licence)
        self.assertEqual(run_threshold(self.node), 0.5)

    def test_map_that_does_not_fit_is_refused_and_nothing_begun(self):
        node = segmentation_from_result(self.result, self.volume_node)
        for probability in (self.result.probability[1:], self.result.probability.astype(np.float32)):
            with self.assertRaisesRegex(InputError, "does not fit the CT 'CT'"):
                start_review(node, self.volume_node, probability=probability, card=self.result.card, threshold=0.5)
        self.assertEqual(card_of(node), {})
        self.assertEqual(reviews_of(self.volume_node), [self.node])

    def test_review_begins_once(self):
        with self.assertRaisesRegex(InputError, "has begun already"):
            start_review(self.node, self.volume_node, probability=self.result.probability, card=self.result.card, threshold=0.5)

    def test_segments_of_another_grid_are_refused(self):
        other = add_volume(ct_with_balls(direction_lps=(1.0, 0, 0, 0, 1, 0, 0, 0, 1)), "Other")
        with self.assertRaisesRegex(InputError, "does not lie on the voxels of the CT 'Other'"):
            resume_review(self.node, other)
        self.assertIs(volume_of(self.node), self.volume_node)

    def test_missing_ct_and_another_transform_are_named(self):
        self.node.SetAndObserveTransformNodeID(add_transform(self.scene, rigid_motion()).GetID())
        with self.assertRaisesRegex(InputError, "different transforms"):
            volume_of(self.node)
        self.scene.RemoveNode(self.volume_node)
        with self.assertRaisesRegex(InputError, "not in the scene"):
            volume_of(self.node)


class DecisionTest(ReviewTestCase):
    def visible(self) -> list[str]:
        display = self.node.GetDisplayNode()
        return [each for each in self.node.GetSegmentation().GetSegmentIDs() if display.GetSegmentVisibility(each)]

    def test_decision_and_reader_are_noted_and_undone(self):
        self.editor.decide(["Lesion_01", "Lesion_03"], Status.ACCEPTED, "Dr. Müller")
        self.assertEqual([self.status(f"Lesion_0{n}") for n in (1, 2, 3)], ["accepted", "new", "accepted"])
        self.assertEqual(lesion_state(self.node, "Lesion_01").reader, "Dr. Müller")
        self.editor.decide(["Lesion_03"], Status.NEW)
        self.editor.undo()
        self.assertEqual(self.status("Lesion_03"), "accepted")
        self.editor.undo()
        self.assertEqual([self.status(f"Lesion_0{n}") for n in (1, 2, 3)], ["new", "new", "new"])
        self.editor.redo()
        self.assertEqual(lesion_state(self.node, "Lesion_03").reader, "Dr. Müller")

    def test_decision_without_a_name_leaves_the_reader_before(self):
        self.editor.decide(["Lesion_01"], Status.ACCEPTED, "Dr. A")
        self.editor.decide(["Lesion_01"], Status.REJECTED)
        state = lesion_state(self.node, "Lesion_01")
        self.assertEqual((state.status, state.reader), (Status.REJECTED, "Dr. A"))

    def test_rejected_lesion_is_hidden_not_deleted_and_undo_shows_it(self):
        before = self.voxels()
        self.editor.decide(["Lesion_02"], Status.REJECTED)
        self.assertEqual(self.visible(), ["Lesion_01", "Lesion_03"])
        np.testing.assert_equal(self.voxels(), before)
        self.editor.undo()
        self.assertEqual(self.visible(), ["Lesion_01", "Lesion_02", "Lesion_03"])
        self.editor.redo()
        self.assertEqual(self.visible(), ["Lesion_01", "Lesion_03"])
        self.editor.decide(["Lesion_02"], Status.NEW)
        self.assertEqual(self.visible(), ["Lesion_01", "Lesion_02", "Lesion_03"])

    def test_lesion_hidden_by_hand_stays_hidden(self):
        self.node.GetDisplayNode().SetSegmentVisibility("Lesion_03", False)
        self.editor.decide(["Lesion_02"], Status.REJECTED)
        self.editor.decide(["Lesion_02"], Status.ACCEPTED)
        self.assertEqual(self.visible(), ["Lesion_01", "Lesion_02"])

    def test_painting_makes_edited_and_undoing_it_takes_that_back(self):
        self.editor.decide(["Lesion_01"], Status.ACCEPTED)
        self.paint("Lesion_01", (slice(12, 14), slice(24, 26), slice(8, 30)))
        self.paint("Lesion_03", (slice(30, 32), slice(52, 54), slice(24, 26)), value=False)
        self.assertEqual([self.status(f"Lesion_0{n}") for n in (1, 2, 3)], ["edited", "new", "edited"])
        self.editor.undo()
        self.editor.undo()
        self.assertEqual([self.status(f"Lesion_0{n}") for n in (1, 2, 3)], ["accepted", "new", "new"])

    def test_edited_lesion_that_is_accepted_is_accepted(self):
        self.paint("Lesion_01", (slice(12, 14), slice(24, 26), slice(8, 30)))
        self.editor.decide(["Lesion_01"], Status.ACCEPTED)
        self.assertEqual(self.status("Lesion_01"), "accepted")

    def test_segment_that_a_reader_painted_anew_is_edited_and_by_hand(self):
        segment_id = self.node.GetSegmentation().AddEmptySegment("", "Mine")
        self.paint(segment_id, (slice(2, 5), slice(2, 5), slice(2, 5)))
        state = lesion_state(self.node, segment_id)
        self.assertEqual((state.status, state.origin, state.is_reviewed), (Status.EDITED, Origin.MANUAL, True))

    def test_undo_does_not_take_back_time_in_focus(self):
        self.editor.decide(["Lesion_01"], Status.ACCEPTED)
        add_seconds_in_focus(self.node, "Lesion_01", 12.5)
        self.editor.undo()
        add_seconds_in_focus(self.node, "Lesion_01", 2.0)
        self.assertEqual(lesion_state(self.node, "Lesion_01").seconds, 14.5)
        self.assertTrue(self.editor.can_redo)
        self.editor.redo()
        self.editor.decide(["Lesion_01"], Status.ACCEPTED)
        self.assertEqual(tags_of(self.node, "Lesion_01")["NLSTSeg.Seconds"], "14.5")

    def test_undo_without_a_step_does_nothing(self):
        self.assertFalse(self.editor.can_undo or self.editor.can_redo)
        self.editor.undo()
        self.editor.redo()
        self.assertEqual(self.status("Lesion_01"), "new")

    def test_steps_go_to_the_embedded_editor_where_there_is_one(self):
        import slicer

        class Embedded:
            """The logic behind ``qMRMLSegmentEditorWidget``, with the names that the widget has."""

            def __init__(self, scene, node):
                self.logic = slicer.vtkSlicerSegmentEditorLogic()
                self.logic.SetMRMLScene(scene)
                self.logic.SetSegmentEditorNode(scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
                self.logic.SetSegmentationNode(node)
                self.saveStateForUndo, self.undo, self.redo = self.logic.SaveStateForUndo, self.logic.Undo, self.logic.Redo

        embedded = Embedded(self.scene, self.node)
        editor = LesionEditor(self.node, embedded)
        self.addCleanup(editor.close)
        editor.decide(["Lesion_02"], Status.REJECTED)
        ThresholdDrag(editor, "Lesion_01").move(0.8)
        # The widget's own button.
        embedded.undo()
        self.assertEqual([self.status("Lesion_01"), self.status("Lesion_02")], ["new", "rejected"])
        embedded.undo()
        show_by_status(self.node)
        self.assertEqual(self.visible(), ["Lesion_01", "Lesion_02", "Lesion_03"])
        self.assertFalse(embedded.logic.CanUndo())

    def test_closed_editor_leaves_nothing_in_the_scene(self):
        before = self.scene.GetNumberOfNodes()
        editor = LesionEditor(self.node)
        editor.decide(["Lesion_01"], Status.ACCEPTED)
        editor.close()
        self.assertEqual(self.scene.GetNumberOfNodes(), before)

    def test_editor_closes_after_its_scene(self):
        editor = LesionEditor(self.node)
        self.scene.Clear()
        editor.close()
        with self.assertRaisesRegex(InputError, "in no scene any more"):
            volume_of(self.node)


class TwoReviewsTest(MrmlTestCase):
    def test_two_cts_and_their_segmentations_do_not_mix(self):
        cts = ct_with_balls(), ct_with_balls((LARGE, FAINT), (1.0, 0, 0, 0, 1, 0, 0, 0, 1), (30, 66, 60))
        volumes = [add_volume(ct, f"CT {n}") for n, ct in enumerate(cts)]
        volumes[1].SetAndObserveTransformNodeID(add_transform(self.scene, rigid_motion()).GetID())
        results = soft_result(cts[0]), soft_result(cts[1], (LARGE, FAINT))
        nodes = [begin(result, volume) for result, volume in zip(results, volumes, strict=True)]
        editors = [LesionEditor(node) for node in nodes]
        self.assertEqual([reviews_of(volume) for volume in volumes], [[nodes[0]], [nodes[1]]])
        before = voxels_of(nodes[1], cts[1].hu.shape)
        editors[0].decide(["Lesion_01"], Status.REJECTED)
        ThresholdDrag(editors[0], "Lesion_02").move(0.2)
        delete_lesion(editors[0], "Lesion_03")
        np.testing.assert_equal(voxels_of(nodes[1], cts[1].hu.shape), before)
        self.assertEqual(lesion_state(nodes[1], "Lesion_01").status, Status.NEW)
        self.assertFalse(editors[1].can_undo)
        for node, result in zip(nodes, results, strict=True):
            np.testing.assert_array_equal(probability_of(node), result.probability)
        ThresholdDrag(editors[1], "Lesion_01").move(0.7)
        editors[0].undo()
        self.assertEqual(lesion_state(nodes[1], "Lesion_01").status, Status.EDITED)
        for editor in editors:
            editor.close()


class KeptTest(MrmlTestCase):
    """What a review holds after it was saved and loaded again."""

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        # Right-handed, as everything that Slicer has loaded: it turns left-handed volumes round when it loads them.
        self.ct = ct_with_balls(direction_lps=oblique_direction((1, 0, 2), (1, -1, 1)))

    def reviewed(self, scene):
        """A review with all kinds of lesions, under a transform."""
        volume_node = add_volume(self.ct)
        volume_node.SetAndObserveTransformNodeID(add_transform(scene, rigid_motion()).GetID())
        node = begin(soft_result(self.ct), volume_node)
        editor = LesionEditor(node)
        editor.decide(["Lesion_02"], Status.REJECTED, "Dr. Müller")
        add_seconds_in_focus(node, "Lesion_02", 7.5)
        ThresholdDrag(editor, "Lesion_01").move(0.2)
        add_lesion(editor, find_lesion_at(node, world_ras_mm(volume_node, self.ct, FAINT.centre_ijk)), "Dr. B")
        editor.close()
        return node

    def content(self, node) -> dict:
        ids = node.GetSegmentation().GetSegmentIDs()
        display = node.GetDisplayNode()
        return {
            "states": {each: lesion_state(node, each) for each in ids},
            "voxels": voxels_of(node, self.ct.hu.shape),
            "visible": [each for each in ids if display.GetSegmentVisibility(each)],
        }

    def kept(self, node) -> dict:
        proposals = node.GetNodeReference(PROPOSAL_ROLE + "run1")
        return {
            "card": card_of(node),
            "threshold": run_threshold(node),
            "probability": probability_of(node).copy(),
            "proposals": voxels_of(proposals, self.ct.hu.shape),
            "hidden": [node.GetNodeReference(role + "run1").GetHideFromEditors() for role in (PROPOSAL_ROLE, PROBABILITY_ROLE)],
        }

    def assert_works_on(self, node):
        """The review goes on: the drag brings the proposal back."""
        editor = LesionEditor(node)
        ThresholdDrag(editor, "Lesion_01").move(0.5)
        self.assertEqual(lesion_state(node, "Lesion_01").status, Status.NEW)
        editor.close()

    def save_and_load(self, save, load):
        with mrml_scene() as scene:
            node = self.reviewed(scene)
            name, before, kept = node.GetName(), self.content(node), self.kept(node)
            self.assertEqual(before["visible"], ["Lesion_01", "Lesion_03", "Lesion_04"])
            self.assertEqual([str(state.status) for state in before["states"].values()], ["edited", "rejected", "new", "edited"])
            save(scene)
        with mrml_scene() as scene:
            load(scene)
            node = next(node for node in reviews_of(scene.GetFirstNodeByName("CT")) if node.GetName() == name)
            np.testing.assert_equal(self.content(node), before)
            np.testing.assert_equal(self.kept(node), kept)
            self.assert_works_on(node)

    def test_scene_file_beside_its_data_files(self):
        import slicer

        def save(scene):
            for node in slicer.util.getNodesByClass("vtkMRMLStorableNode", scene):
                # As the dialog for saving does it: hidden nodes are left to the scene.
                if node.GetHideFromEditors() or node.IsA("vtkMRMLColorNode"):
                    continue
                node.AddDefaultStorageNode()
                storage = node.GetStorageNode()
                if storage is not None:
                    storage.SetFileName(str(self.folder / f"{node.GetName()}.{storage.GetDefaultWriteFileExtension()}"))
                    self.assertTrue(storage.WriteData(node))
            scene.SetRootDirectory(str(self.folder))
            scene.SetURL(str(self.folder / "review.mrml"))
            self.assertTrue(scene.Commit())

        def load(scene):
            scene.SetURL(str(self.folder / "review.mrml"))
            self.assertTrue(scene.Connect())

        self.save_and_load(save, load)

    def test_scene_bundle(self):
        import slicer

        def load(scene):
            remote, manager = slicer.vtkMRMLRemoteIOLogic(), slicer.vtkDataIOManagerLogic()
            remote.SetMRMLScene(scene)
            manager.SetMRMLApplicationLogic(slicer.app.applicationLogic())
            remote.AddDataIOToScene()
            self.assertTrue(scene.ReadFromMRB(str(self.folder / "review.mrb"), True))

        self.save_and_load(lambda scene: self.assertTrue(scene.WriteToMRB(str(self.folder / "review.mrb"))), load)

    def test_segmentation_file_alone(self):
        with mrml_scene() as scene:
            node = self.reviewed(scene)
            before = self.content(node)
            layers = node.GetSegmentation().GetNumberOfLayers()
            write_segmentation_node(node, self.folder / "x.seg.nrrd")
            self.assertEqual(node.GetSegmentation().GetNumberOfLayers(), layers)
            self.assertIsNone(node.GetStorageNode())
        with mrml_scene() as scene:
            import slicer

            volume_node = add_volume(self.ct)
            volume_node.SetAndObserveTransformNodeID(add_transform(scene, rigid_motion()).GetID())
            node = slicer.modules.segmentations.logic().LoadSegmentationFromFile(str(self.folder / "x.seg.nrrd"))
            resume_review(node, volume_node)
            np.testing.assert_equal(self.content(node), before)
            self.assertEqual(before["states"]["Lesion_02"].seconds, 7.5)
            self.assertEqual((probability_of(node), proposals_of(node, ("run1/Lesion_01",))), (None, None))
            editor = LesionEditor(node)
            with self.assertRaisesRegex(InputError, "probability map of 'Lesion 01' is not in the scene"):
                ThresholdDrag(editor, "Lesion_01")
            editor.close()


if __name__ == "__main__":
    unittest.main()
