"""A whole evaluation on tiny synthetic cases with a model whose answer is known: figures, files, page, resuming."""

import base64
import copy
import dataclasses
import json
import re
import tempfile
import threading
import unittest
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from typer.testing import CliRunner

from helpers.file_hashes import hashes
from helpers.threshold_model import threshold_model, write_threshold_bundle
from nlstseg_training.cli import make_app
from nlstseg_training.data.cache import Split, load_case, read_json, write_json
from nlstseg_training.data.prepare import prepare
from nlstseg_training.data.readers.source import Found, RawCase, Source
from nlstseg_training.evaluation.alarms import alarms
from nlstseg_training.evaluation.evaluate import EVALUATION_FILE, REPORT_FILE, evaluate
from nlstseg_training.evaluation.pooled import pooled_figures
from nlstseg_training.evaluation.records import Kept
from nlstseg_training.evaluation.report.page import make_report
from nlstseg_training.evaluation.report.pictures import Subject
from NLSTSegLib.disk.atomic_folder import held
from NLSTSegLib.errors import InputError
from NLSTSegLib.inference.devices import DeviceRequest
from NLSTSegLib.pipeline import SegmentOptions, segment
from NLSTSegLib.volume.ct import CtVolume

CPU = DeviceRequest("cpu", 1)

SPACING_IJK_MM = (0.8, 0.8, 2.0)

SHAPE_KJI = (14, 56, 60)

LUNG_HU, SURE_HU, FAINT_HU = -850, 100, -295
"""The model gives 0, 1 and 0.55."""


@dataclasses.dataclass(frozen=True)
class Ball:
    """A sphere; where in mm (k, j, i), how large, how bright, and its value in the reference (0: not annotated)."""

    centre_mm: tuple[float, float, float]
    radius_mm: float
    hu: int
    label: int
    marked_radius_mm: float = 0.0
    """Of what the reader drew, where it is not the ball itself."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticChest(Source):
    """A case of balls in lung."""

    balls: tuple[Ball, ...]
    kind: str = "crop"
    type_of: str = "tumour"

    def state(self) -> str:
        return repr(self)

    def read(self) -> RawCase:
        steps = SPACING_IJK_MM[::-1]
        grid = np.meshgrid(*(np.arange(n) * step for n, step in zip(SHAPE_KJI, steps, strict=True)), indexing="ij")
        hu, labels = np.full(SHAPE_KJI, LUNG_HU, np.int16), np.zeros(SHAPE_KJI, np.uint8)
        # No two scans are the same to the last voxel.
        hu[0, 0, : len(self.id)] = [-900 - ord(letter) for letter in self.id]
        for ball in self.balls:
            distance = np.sqrt(sum((axis - at) ** 2 for axis, at in zip(grid, ball.centre_mm, strict=True)))
            hu[distance < ball.radius_mm] = ball.hu
            if ball.label:
                labels[distance < (ball.marked_radius_mm or ball.radius_mm)] = ball.label
        kinds = {ball.label: self.type_of for ball in self.balls if ball.label}
        lungs = labels > 0 if self.kind == "chest" else None
        return RawCase(CtVolume(hu, SPACING_IJK_MM), labels, self.kind, True, lungs=lungs, lesion_kinds=kinds)


CASES = (
    # Found as it is.
    SyntheticChest(id="a", patient="p1", reader="made", balls=(Ball((14, 22, 24), 7.0, SURE_HU, 1),)),
    # One found at low thresholds only, one missed, and two marks that nobody annotated.
    SyntheticChest(
        id="b",
        patient="p2",
        reader="made",
        type_of="nodule",
        balls=(
            Ball((8, 12, 12), 4.5, FAINT_HU, 1),
            Ball((14, 32, 34), 2.5, LUNG_HU, 2),
            Ball((14, 12, 36), 4.0, SURE_HU, 0),
            Ball((14, 32, 12), 3.0, SURE_HU, 0),
        ),
    ),
    # The reader drew a much larger outline: found, but not strictly.
    SyntheticChest(id="c", patient="p2", reader="made", balls=(Ball((14, 22, 24), 4.0, SURE_HU, 1, marked_radius_mm=9.0),)),
    # Nothing there, nothing found.
    SyntheticChest(id="d", patient="p3", reader="made", balls=()),
)


def make_cache(folder: Path, cases: tuple[SyntheticChest, ...] = CASES) -> tuple[Path, Path]:
    """Cache and split file; all cases are in the validation and in no other part."""
    prepared = prepare(Found(cases), folder / "cache")
    if prepared.refused:
        raise AssertionError(prepared.refused)
    write_json(folder / "split.json", Split(1, 0, "salt", (), tuple(case.id for case in cases), ()))
    return folder / "cache", folder / "split.json"


def run(folder: Path, out: str, part: str = "validation", **options) -> dict:
    model = options.pop("model", None) or threshold_model(min_volume_mm3=20.0)
    return evaluate(model, folder / "cache", folder / "split.json", part, folder / out, device=CPU, **options)


class Page(HTMLParser):
    """Text of the cells by section, the pictures, and every place the page would fetch something from."""

    FETCHING: ClassVar = {"src", "href", "srcset", "data", "action", "poster", "background", "xlink:href"}

    def __init__(self, text: str):
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.fetched: list[str] = []
        self.tags: set[str] = set()
        self.text: list[str] = []
        self._inside: list[str] = []
        self._section = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.fetched += [value or "" for name, value in attributes if name in self.FETCHING]
        if tag == "h2":
            self._section = ""
        if tag == "tr":
            self.tables.setdefault(self._section, []).append([])
        if tag in ("td", "th"):
            self.tables[self._section][-1].append("")
        if tag not in ("meta", "img"):
            self._inside.append(tag)

    def handle_endtag(self, tag):
        if self._inside.pop() != tag:
            raise AssertionError(f"{tag} closes another element")

    def handle_data(self, text):
        self.text.append(text)
        inside = self._inside[-1] if self._inside else ""
        if inside == "h2":
            self._section += text
        elif inside in ("td", "th"):
            self.tables[self._section][-1][-1] += text


class EvaluationTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        torch.set_num_threads(1)
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        make_cache(cls.folder)
        cls.content = run(cls.folder, "out", threshold=0.5)
        cls.records = {case["id"]: case for case in cls.content["by_case"]}

    def test_the_marks_are_those_of_segment(self):
        model = threshold_model(min_volume_mm3=20.0)
        for case_id, record in self.records.items():
            case = load_case(self.folder / "cache", case_id)
            result = segment(case.ct, model, SegmentOptions(lung_field="none", device="cpu"))
            self.assertEqual(len(record["marks"]), len(result.lesions))
            both = int(np.count_nonzero((case.labels > 0) & (result.labels > 0)))
            self.assertEqual(record["voxels"]["true_positive"], both)

    def test_every_case_has_the_figures_of_its_shapes(self):
        self.assertEqual((self.records["a"]["dice"], self.records["a"]["nsd_1mm"]), (1.0, 1.0))
        self.assertIsNone(self.records["d"]["dice"])
        self.assertIsNone(self.records["d"]["nsd_2mm"])
        ratio = (4 / 9) ** 3
        self.assertAlmostEqual(self.records["c"]["dice"], 2 * ratio / (1 + ratio), delta=0.03)
        # Five millimetres apart all around.
        self.assertEqual(self.records["c"]["nsd_2mm"], 0.0)
        lesion = self.records["c"]["lesions"][0]
        self.assertAlmostEqual(lesion["matched_volume_mm3"] / lesion["volume_mm3"], ratio, delta=0.03)
        self.assertAlmostEqual(lesion["diameter_mm"], 18, delta=0.3)

    def test_lesions_marks_and_rates_are_pooled(self):
        found = self.content["detection"]["lenient"]
        self.assertEqual((found["lesions"], found["found"], found["marks"], found["outside"]), (4, 3, 5, 2))
        self.assertEqual(found["sensitivity"]["value"], 0.75)
        self.assertEqual(found["ppv"]["value"], 0.6)
        self.assertAlmostEqual(found["f1"]["value"], 2 * 0.75 * 0.6 / (0.75 + 0.6))
        self.assertEqual(found["outside_per_case"]["value"], 0.5)
        strict = self.content["detection"]["strict"]
        self.assertEqual((strict["found"], strict["outside"]), (2, 3))
        self.assertEqual([lesion["found_strictly"] for lesion in self.records["c"]["lesions"]], [False])
        self.assertEqual(self.content["overlap"][0]["both_empty"], 1)
        dice = [self.records[case]["dice"] for case in "abc"]
        self.assertAlmostEqual(self.content["overlap"][0]["dice"]["value"], np.mean(dice))
        self.assertEqual((self.content["cases"], self.content["patients"]), (4, 3))

    def test_lesions_are_grouped_by_diameter_and_type(self):
        rows = {row["lesions"]: row for row in self.content["by_diameter"] + self.content["by_type"]}
        self.assertEqual({name: row["number"] for name, row in rows.items()}, {
            "< 6 mm": 1, "6-10 mm": 1, "10-20 mm": 2, "> 20 mm": 0, "tumour": 2, "nodule": 2,
        })  # fmt: skip
        self.assertEqual((rows["< 6 mm"]["found"], rows["< 6 mm"]["dice_all"]["value"]), (0, 0.0))
        self.assertIsNone(rows["< 6 mm"]["dice_found"]["value"])
        self.assertIsNone(rows["> 20 mm"]["sensitivity"]["value"])
        errors = [each["matched_volume_mm3"] / each["volume_mm3"] - 1 for case in "ac" for each in self.records[case]["lesions"]]
        self.assertAlmostEqual(rows["10-20 mm"]["volume_error"]["value"], np.mean(errors))

    def test_a_lesion_at_the_border_belongs_to_the_larger_group(self):
        record = read_json(self.folder / "out" / "cases" / "a.json", Kept, "").records[0]
        sizes = (5.99, 6.0, 9.99, 10.0, 19.99, 20.0, 80.0)
        lesions = tuple(dataclasses.replace(record.lesions[0], diameter_mm=size) for size in sizes)
        rows = pooled_figures([dataclasses.replace(record, lesions=lesions)])["by_diameter"]
        self.assertEqual([row["number"] for row in rows], [1, 2, 2, 2])

    def test_scores_of_the_froc_are_the_highest_probabilities(self):
        self.assertEqual([lesion["froc_score"] for lesion in self.records["b"]["lesions"]][1], 0.0)
        self.assertAlmostEqual(self.records["b"]["lesions"][0]["froc_score"], 0.55, delta=0.01)
        # Two lesions and both marks outside have 1.0, one lesion 0.55, one none: half a mark a scan finds three of four.
        rates = {each["outside_per_scan"]: each["value"] for each in self.content["froc"]["sensitivity"]}
        self.assertEqual((rates[0.25], rates[0.5]), (0.0, 0.75))

    def test_the_threshold_is_chosen_on_validation_without_running_the_network_again(self):
        ran = []
        model = threshold_model(min_volume_mm3=20.0)
        model.network.register_forward_hook(lambda *_: ran.append(1))
        first = run(self.folder, "sweep", model=model)
        slices = len(ran)
        # At 0.6 and above the faint lesion is gone; all of 0.1 to 0.5 are equal, and the highest of equals is taken.
        self.assertEqual(first["threshold"], {"value": 0.5, "chosen_by": "highest strict F1 of the lesions of these cases"})
        self.assertEqual([row["threshold"] for row in first["sweep"]], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98])
        values = {row["threshold"]: row["f1_strict"]["value"] for row in first["sweep"]}
        self.assertGreater(values[0.5], values[0.9])
        self.assertEqual(max(values.values()), values[0.5])
        self.assertEqual(first["by_case"], self.content["by_case"])
        run(self.folder, "sweep", model=model, threshold=0.8)
        self.assertEqual(len(ran), slices)
        self.assertGreater(slices, 0)

    def test_two_evaluations_in_one_folder_are_told_apart_from_a_full_disk(self):
        said = []

        def other() -> None:
            with self.assertRaises(InputError) as raised:
                run(self.folder, "busy")
            said.append(str(raised.exception))

        with held(self.folder / "busy"):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        self.assertIn("another run is writing to", said[0])

    def test_an_empty_part_and_a_wrong_threshold_are_refused(self):
        with self.assertRaisesRegex(InputError, "the part 'test' .* has no cases"):
            run(self.folder, "refused", part="test")
        with self.assertRaisesRegex(InputError, "between 0 and 1, not 1.5"):
            run(self.folder, "refused", threshold=1.5)
        self.assertFalse((self.folder / "refused").exists())

    def test_a_part_without_a_lesion_cannot_choose_the_threshold(self):
        write_json(self.folder / "none.json", Split(1, 0, "salt", ("a",), ("d",), ("b",)))
        arguments = threshold_model(), self.folder / "cache", self.folder / "none.json", "validation", self.folder / "none"
        with self.assertRaisesRegex(InputError, "has a lesion"):
            evaluate(*arguments, device=CPU)

    def test_the_test_part_takes_the_threshold_of_the_card(self):
        write_json(self.folder / "test.json", Split(1, 0, "salt", ("a",), ("d",), ("b",)))
        model = threshold_model(threshold=0.7, min_volume_mm3=20.0)
        content = evaluate(model, self.folder / "cache", self.folder / "test.json", "test", self.folder / "test", device=CPU)
        self.assertEqual(content["threshold"], {"value": 0.7, "chosen_by": "model card"})
        self.assertEqual(content["detection"]["lenient"]["found"], 0)
        self.assertEqual(content["sweep"], [])


class LungFieldTest(unittest.TestCase):
    def test_the_field_of_the_cache_does_not_give_the_lesions_away(self):
        # It covers nothing but the lesion, yet what lies elsewhere is marked as segment would mark it.
        balls = (Ball((14, 22, 12), 5.0, SURE_HU, 1), Ball((14, 22, 36), 4.0, SURE_HU, 0))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_cache(folder, (SyntheticChest(id="chest", patient="p", reader="made", kind="chest", balls=balls),))
            case = load_case(folder / "cache", "chest")
            self.assertIsNotNone(case.lungs)
            self.assertEqual(set(np.unique(case.labels[case.lungs])) - {0}, {1})
            content = run(folder, "out", threshold=0.5)
            self.assertEqual(content["detection"]["lenient"]["outside"], 1)
            self.assertIn("no_lungs", " ".join(content["by_case"][0]["findings"]).replace("-", "_"))


class ResumeTest(unittest.TestCase):
    def setUp(self):
        torch.set_num_threads(1)
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        make_cache(self.folder)

    def kept(self, out: str, part: str) -> Iterator[Path]:
        return sorted((self.folder / out / part).glob("*"))

    def test_an_interrupted_run_goes_on_and_ends_as_a_straight_one(self):
        def stop(fraction: float, stage: str) -> None:
            if stage.startswith("case 3") and "network" in stage:
                raise KeyboardInterrupt

        with self.assertRaises(KeyboardInterrupt):
            run(self.folder, "out", threshold=0.5, progress=stop)
        self.assertEqual([path.name for path in self.kept("out", "cases")], ["a.json", "b.json"])
        self.assertFalse((self.folder / "out" / EVALUATION_FILE).exists())
        seen = []
        run(self.folder, "out", threshold=0.5, progress=lambda fraction, stage: seen.append(stage))
        self.assertFalse([stage for stage in seen if stage.startswith(("case 1", "case 2"))])
        run(self.folder, "straight", threshold=0.5)
        for name in (EVALUATION_FILE, REPORT_FILE):
            texts = [(self.folder / out / name).read_text(encoding="utf-8") for out in ("out", "straight")]
            self.assertEqual(*texts, name)

    def test_records_of_another_model_threshold_or_case_are_made_again(self):
        first = run(self.folder, "out", threshold=0.5)
        self.assertEqual(run(self.folder, "out", threshold=0.9)["detection"]["lenient"]["found"], 2)
        other = threshold_model(min_volume_mm3=20.0)
        with torch.no_grad():
            other.network.head.bias.add_(-100)
        nothing = run(self.folder, "out", threshold=0.5, model=other)
        self.assertEqual(nothing["detection"]["lenient"]["marks"], 0)
        overlap = nothing["overlap"][0]
        self.assertEqual((overlap["one_empty"], overlap["both_empty"], overlap["dice"]["value"]), (3, 1, 0.0))
        changed = dataclasses.replace(CASES[0], balls=(Ball((14, 22, 24), 4.0, SURE_HU, 1),))
        prepare(Found((changed, *CASES[1:])), self.folder / "cache")
        again = run(self.folder, "out", threshold=0.5)
        self.assertLess(again["by_case"][0]["lesions"][0]["volume_mm3"], first["by_case"][0]["lesions"][0]["volume_mm3"])
        self.assertEqual(again["by_case"][1:], first["by_case"][1:])

    def test_damaged_leftovers_are_made_again(self):
        first = run(self.folder, "out", threshold=0.5)
        records, volume = self.kept("out", "cases")[0], self.kept("out", "probability")[1]
        records.write_text(records.read_text()[:-40])
        volume.write_bytes(volume.read_bytes()[:200])
        self.kept("out", "cases")[1].unlink()
        self.assertEqual(run(self.folder, "out", threshold=0.5), first)
        self.assertEqual(len(read_json(records, Kept, "").records), 1)


class CommandTest(unittest.TestCase):
    def test_evaluate_writes_the_report_and_shows_the_figures(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            cache, split = make_cache(folder, CASES[:1])
            write_threshold_bundle(folder / "bundle")
            arguments = ["--bundle", folder / "bundle", "--cache", cache, "--split", split, "--device", "cpu", "--threads", 1]
            arguments = ["evaluate", *map(str, arguments), "--part"]
            done = CliRunner().invoke(make_app(), [*arguments, "validation", "--out", str(folder / "out")])
            self.assertEqual(done.exit_code, 0, done.output)
            self.assertIn("Dice per case", done.output)
            self.assertTrue((folder / "out" / REPORT_FILE).is_file())
            refused = CliRunner().invoke(make_app(), [*arguments, "test", "--out", str(folder / "other")])
            self.assertEqual(refused.exit_code, 2)
            self.assertIn("the part 'test' of", refused.output)


def cache_files(folder: Path) -> dict[str, dict[str, str]]:
    """Hashes of the files of every case."""
    return {case.name: hashes(case) for case in sorted((folder / "cache").iterdir()) if case.is_dir()}


class ReportTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        torch.set_num_threads(1)
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        make_cache(cls.folder)
        cls.cache_before = cache_files(cls.folder)
        cls.content = run(cls.folder, "out")
        cls.html = (cls.folder / "out" / REPORT_FILE).read_text(encoding="utf-8")
        cls.page = Page(cls.html)

    def test_the_json_beside_it_is_what_was_returned_and_plain_json(self):
        text = (self.folder / "out" / EVALUATION_FILE).read_text(encoding="utf-8")
        self.assertEqual(json.loads(text, parse_constant=lambda name: self.fail(f"{name} is no JSON")), self.content)

    def test_nothing_is_fetched_from_anywhere(self):
        self.assertTrue(self.page.fetched)
        self.assertEqual([place for place in self.page.fetched if not place.startswith("data:image/")], [])
        self.assertTrue(self.page.tags.isdisjoint({"script", "link", "iframe", "object", "embed", "base"}))
        style = re.search(r"<style>(.*?)</style>", self.html, re.DOTALL)[1]
        self.assertNotRegex(style, r"url\(|@import|//")
        for picture in self.page.fetched:
            if picture.startswith("data:image/svg"):
                svg = base64.b64decode(picture.split(",")[1]).decode()
                links = re.findall(r'(?:href|src)="([^"]*)"', svg) + re.findall(r"url\(([^)]*)\)", svg)
                self.assertEqual([link for link in links if not link.startswith("#")], [])
                self.assertNotIn("<script", svg)

    def test_there_are_the_plots_and_a_picture_of_every_subject(self):
        kinds = [picture.split(";")[0] for picture in self.page.fetched]
        # FROC, Dice, Bland-Altman, sweep; four lesions and two marks outside.
        self.assertEqual(kinds.count("data:image/svg+xml"), 4)
        self.assertEqual(kinds.count("data:image/png"), 6)

    def test_the_worst_lesion_comes_first(self):
        captions = re.findall(r"<figcaption>(\w+): lesion (\d)", self.html)
        self.assertEqual(captions[:2], [("b", "2"), ("c", "1")])

    def test_the_figures_of_the_page_are_those_of_the_json(self):
        def shown(each: dict) -> str:
            value = "n/a" if each["value"] is None else f"{each['value']:.2f}"
            return value if each["low"] is None else f"{value} ({each['low']:.2f}-{each['high']:.2f})"

        def rows(section: str) -> dict[str, dict[str, str]]:
            head, *body = self.page.tables[section]
            return {row[0]: dict(zip(head, row, strict=True)) for row in body}

        overlap = rows("Overlap per case")["all"]
        for name, key in (("Dice", "dice"), ("IoU", "iou"), ("NSD 1 mm", "nsd_1mm"), ("NSD 2 mm", "nsd_2mm")):
            self.assertEqual(overlap[name], shown(self.content["overlap"][0][key]))
        for rule, row in rows("Lesions found").items():
            for key in ("lesions", "found", "marks", "outside"):
                self.assertEqual(row[key], str(self.content["detection"][rule][key]))
            for name, key in (("sensitivity", "sensitivity"), ("PPV", "ppv"), ("F1", "f1")):
                self.assertEqual(row[name], shown(self.content["detection"][rule][key]))
        groups = rows("Lesions by diameter and by type")
        for row in (self.content["all_lesions"], *self.content["by_diameter"], *self.content["by_type"]):
            self.assertEqual(groups[row["lesions"]]["number"], str(row["number"]))
            self.assertEqual(groups[row["lesions"]]["sensitivity"], shown(row["sensitivity"]))
            self.assertEqual(groups[row["lesions"]]["Dice of found"], shown(row["dice_found"]))
        froc = rows("Free-response ROC")["lesions found"]
        self.assertEqual(froc["mean (CPM)"], shown(self.content["froc"]["cpm"]))
        self.assertEqual(froc["0.5"], shown(self.content["froc"]["sensitivity"][2]))
        sweep = rows("Threshold sweep")
        self.assertEqual(len(sweep), 11)
        self.assertEqual(sweep["0.9"]["Dice per case"], shown(self.content["sweep"][8]["dice"]))
        self.assertEqual(sweep["0.9"]["strict F1"], shown(self.content["sweep"][8]["f1_strict"]))
        cases = rows("Every case")
        self.assertEqual({name: row["Dice"] for name, row in cases.items()}, {
            record["id"]: shown({"value": record["dice"], "low": None}) for record in self.content["by_case"]
        })  # fmt: skip
        (published,) = self.page.tables["Published protocol"][1:]
        self.assertEqual(published[0], shown(self.content["published_protocol"]["iou"]))

    def test_a_model_that_is_worse_than_marking_nothing_is_told_in_red(self):
        self.assertEqual(alarms(self.content), [])
        self.assertNotIn('class="alarm"', self.html)
        worse = copy.deepcopy(self.content)
        worse["overlap"][0]["pooled_voxel_precision"]["value"] = 0.031
        worse["detection"]["strict"]["found"] = 0
        page = make_report(worse, {})
        told = re.findall(r'<p class="alarm">(.*?)</p>', page)
        self.assertIn("worse than marking nothing: of all that it marks 3 % is lesion", told[0])
        self.assertIn("none of the 4 lesions", told[1])
        self.assertRegex(page, r"\.alarm \{[^}]*color: #b91c1c")

    def test_the_curves_of_the_training_are_shown_from_its_folder(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (folder / "log").mkdir()
        (folder / "log" / "metrics.csv").write_text(
            "step,loss,validation_loss,phase,case_dice\n5,2.5,2,1,\n5,,,,0.5\n10,1,1,2,\n"
        )
        page = Page(make_report(self.content, {}, folder))
        pictures = [picture.split(";")[0] for picture in page.fetched]
        self.assertEqual(pictures.count("data:image/png"), 1)
        self.assertIn("Training", " ".join(page.text))

    def test_the_published_protocol_is_labelled_as_such(self):
        self.assertIn("“published protocol” IoU", self.page.tables["Published protocol"][0])
        self.assertIn("of no other use", " ".join(self.page.text))

    def test_what_flatters_the_figures_is_said(self):
        text = " ".join(self.page.text)
        self.assertIn("chosen on these very cases", text)
        self.assertIn("3 patients can only hint", text)
        self.assertNotIn("used to train", text)
        known = self.content | {"cases_known_to_the_model": 2, "incompletely_annotated_cases": 1}
        text = " ".join(Page(make_report(known, {})).text)
        self.assertIn("2 of 4 cases were used to train", text)
        self.assertIn("In 1 case not every lesion is annotated", text)

    def test_names_are_shown_and_not_run(self):
        evil = "<script>alert(1)</script>"
        content = self.content | {"model": {"name": evil, "version": "1", "weights_sha256": ""}}
        text = make_report(content, {Subject(evil, 1, True, evil): "data:image/png;base64,"})
        self.assertNotIn("<script", text)
        self.assertIn(evil, "".join(Page(text).text))

    def test_a_model_that_marks_nothing_and_a_part_without_lesions_have_a_report_too(self):
        write_json(self.folder / "empty.json", Split(1, 0, "salt", (), (), ("d",)))
        content = evaluate(
            threshold_model(), self.folder / "cache", self.folder / "empty.json", "test", self.folder / "empty", device=CPU
        )
        self.assertIsNone(content["overlap"][0]["dice"]["value"])
        self.assertIsNone(content["froc"]["cpm"]["value"])
        page = Page((self.folder / "empty" / REPORT_FILE).read_text(encoding="utf-8"))
        self.assertIn("n/a", page.tables["Overlap per case"][1])
        self.assertNotIn("nan", " ".join(page.text).lower().split())
        self.assertNotIn("None", " ".join(page.text).split())

    def test_the_cache_is_left_as_it_was(self):
        self.assertEqual(len(self.cache_before), 4)
        self.assertEqual(cache_files(self.folder), self.cache_before)


if __name__ == "__main__":
    unittest.main()
