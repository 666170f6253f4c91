"""The split: by patient and scan, every size of lesion in each part, the same for the same seed, and readable again."""

import dataclasses
import json
import tempfile
import unittest
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from helpers.marks import real_data
from helpers.shared_data import shared_data
from nlstseg_training.cli import make_app
from nlstseg_training.data.cache import CaseEntry, LesionEntry, Manifest, read_json, read_split, training_cases, write_json
from nlstseg_training.data.readers.lidc import find_lidc
from nlstseg_training.data.shipped_split import is_validation, shipped_split
from nlstseg_training.data.split import PARTS, make_split
from NLSTSegLib.checks.training_overlap import salted
from NLSTSegLib.errors import InputError

SIZES_MM = (0.0, 4.0, 8.0, 15.0, 30.0)
"""None, and one for every class of diameters."""


def entry(
    case_id: str, patient: str, diameters_mm=(), *, scan: str = "", series: str = "", kind="chest", given_part=""
) -> CaseEntry:
    lesions = tuple(LesionEntry(n, d**3 / 2, d) for n, d in enumerate(diameters_mm, start=1))
    return CaseEntry(
        id=case_id,
        patient=patient,
        reader="nlstseg",
        kind=kind,
        complete=False,
        shape_kji=(1, 1, 1),
        spacing_kji_mm=(1.0, 1.0, 1.0),
        lesions=lesions,
        voxels_sha256=scan or case_id,
        scan_sha256=scan or case_id,
        series_uid_sha256=series,
        source_state="",
        given_part=given_part,
    )


def manifest(*entries: CaseEntry) -> Manifest:
    return Manifest(1, None, entries, ())


def of_sizes(count: int) -> Manifest:
    """``count`` patients of one case each, equally many of every size."""
    return manifest(*(entry(str(n), str(n), [d for d in SIZES_MM[n % 5 : n % 5 + 1] if d]) for n in range(count)))


def part_of(split) -> dict[str, str]:
    return {case_id: part for part in PARTS for case_id in getattr(split, part)}


entries = st.lists(
    st.builds(
        lambda patient, size, scan, series, kind: (patient, size, scan, series, kind),
        st.integers(0, 40),
        st.sampled_from(SIZES_MM),
        st.integers(0, 60),
        st.integers(0, 80),
        st.sampled_from(("chest", "crop", "background")),
    ),
    min_size=8,
    max_size=60,
).map(
    lambda rows: manifest(
        *(
            entry(f"c{n}", f"p{p}", [d] if d else [], scan=f"s{scan}", series=f"u{series}" if series < 40 else "", kind=kind)
            for n, (p, d, scan, series, kind) in enumerate(rows)
        )
    )
)


class SplitTest(unittest.TestCase):
    @settings(max_examples=60, deadline=None)
    @given(entries, st.integers(0, 5))
    def test_every_case_is_in_one_part_and_no_patient_scan_or_series_in_two(self, cases, seed):
        try:
            split = make_split(cases, validation=0.25, test=0.25, seed=seed)
        except InputError as error:
            # All of them hang together.
            self.assertIn("would be empty", str(error))
            return
        parts = part_of(split)
        self.assertEqual(Counter([*split.train, *split.validation, *split.test]), Counter(case.id for case in cases.cases))
        for mark in ("patient", "scan_sha256", "series_uid_sha256"):
            seen: dict[str, set[str]] = {}
            for case in cases.cases:
                if getattr(case, mark):
                    seen.setdefault(getattr(case, mark), set()).add(parts[case.id])
            self.assertTrue(all(len(found) == 1 for found in seen.values()), mark)

    @settings(max_examples=30, deadline=None)
    @given(st.integers(100, 300), st.integers(0, 100), st.sampled_from([(0.15, 0.15), (0.2, 0.0), (0.1, 0.3)]))
    def test_every_size_has_nearly_its_share_in_each_part(self, count, seed, shares):
        cases = of_sizes(count)
        parts = part_of(make_split(cases, validation=shares[0], test=shares[1], seed=seed))
        for size in range(5):
            own = [parts[str(n)] for n in range(count) if n % 5 == size]
            for part, share in zip(PARTS, (1 - sum(shares), *shares), strict=True):
                self.assertLessEqual(abs(own.count(part) - share * len(own)), 1.5, (size, part))

    def test_the_seed_alone_decides_and_the_order_of_the_cases_does_not(self):
        cases = of_sizes(100)
        split = make_split(cases, seed=1)
        self.assertEqual(split, make_split(manifest(*reversed(cases.cases)), seed=1))
        other = make_split(cases, seed=2)
        self.assertNotEqual(set(split.test), set(other.test))
        self.assertNotEqual(split.salt, other.salt)

    def test_seeds_take_other_patients_for_the_test(self):
        cases = of_sizes(100)
        tested = Counter(case_id for seed in range(20) for case_id in make_split(cases, seed=seed).test)
        self.assertGreater(len(tested), 80)
        self.assertLess(max(tested.values()), 14)

    def test_patients_of_shared_scans_stay_together_through_others(self):
        chain = [entry(f"a{n}", f"p{n // 2}", scan=f"s{(n + 1) // 2}") for n in range(12)]
        others = [entry(f"b{n}", f"q{n}") for n in range(10)]
        parts = part_of(make_split(manifest(*chain, *others), validation=0.2, test=0.2))
        self.assertEqual(len({parts[case.id] for case in chain}), 1)

    def test_a_given_test_part_stays_the_test_part(self):
        given_test = [entry(f"t{n}", f"t{n}", given_part="test") for n in range(5)]
        given_train = [entry(f"n{n}", f"n{n}", given_part="train") for n in range(20)]
        split = make_split(manifest(*given_test, *given_train), validation=0.2, test=0.3)
        self.assertEqual(set(split.test), {case.id for case in given_test})
        self.assertEqual(len(split.validation), 4)
        # A patient of a test case is a test patient.
        again = make_split(manifest(*given_test, *given_train, entry("x", "t0", given_part="train")), validation=0.2, test=0.3)
        self.assertIn("x", again.test)

    def test_shares_that_cannot_be_are_refused(self):
        for shares in ({"validation": -0.1}, {"test": 1.0}, {"validation": 0.5, "test": 0.5}, {"validation": float("nan")}):
            with self.subTest(shares), self.assertRaisesRegex(InputError, "shares of 0 or more"):
                make_split(of_sizes(50), **shares)
        with self.assertRaisesRegex(InputError, "test part would be empty: 2 patients"):
            make_split(of_sizes(2), validation=0.0)
        with self.assertRaisesRegex(InputError, "would be empty: 0 patients"):
            make_split(manifest())
        self.assertEqual(make_split(of_sizes(3), validation=0, test=0).test, ())


class ShippedSplitTest(unittest.TestCase):
    """The split of the bundled model, whose figures docs/models/lidc-25d.md gives."""

    def test_it_depends_on_the_patients_name_alone(self):
        cases = of_sizes(1000)
        split = shipped_split(cases)
        self.assertEqual(set(split.train) | set(split.validation), {case.id for case in cases.cases})
        self.assertEqual((split.test, set(split.train) & set(split.validation)), ((), set()))
        self.assertAlmostEqual(len(split.validation) / 1000, 0.2, delta=0.04)
        half = shipped_split(manifest(*cases.cases[::2]))
        self.assertEqual(set(half.validation), set(split.validation) & {case.id for case in cases.cases[::2]})

    def test_known_patients_are_where_they_were(self):
        # The first by decree; the last two lie nearest to the border.
        known = (("LIDC-IDRI-0001", True), ("LIDC-IDRI-0002", False), ("LIDC-IDRI-0286", False), ("LIDC-IDRI-0685", True))
        for patient, part in known:
            self.assertEqual(is_validation(patient), part, patient)

    def test_the_command_writes_it(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        cases = manifest(entry("a", "LIDC-IDRI-0001"), entry("b", "LIDC-IDRI-0286"), entry("c", "LIDC-IDRI-0685"))
        write_json(folder / "manifest.json", cases)
        done = CliRunner().invoke(make_app(), ["split", str(folder), "--out", str(folder / "split.json"), "--shipped"])
        self.assertEqual(done.exit_code, 0, done.stderr)
        split = read_split(folder / "split.json")
        self.assertEqual((split.train, split.validation, split.test), (("b",), ("a", "c"), ()))

    @real_data
    def test_the_real_crops_are_divided_as_the_model_page_says(self):
        data = shared_data()
        if data is None:
            self.skipTest("no shared data beside the repository")
        crops = [source.patient for source in find_lidc(data).sources if "_nodule-" in source.id]
        self.assertEqual([sum(is_validation(patient) == part for patient in crops) for part in (False, True)], [666, 144])


class SplitFileTest(unittest.TestCase):
    def setUp(self):
        self.path = Path(self.enterContext(tempfile.TemporaryDirectory())) / "split.json"

    def test_it_comes_back_as_it_was_written(self):
        split = make_split(of_sizes(30), seed=7)
        write_json(self.path, split)
        self.assertEqual(read_split(self.path), split)
        self.assertEqual(json.loads(self.path.read_text())["seed"], 7)
        self.assertEqual([path.name for path in self.path.parent.iterdir()], ["split.json"])

    def test_missing_unknown_and_doubled_is_refused_with_the_file(self):
        with self.assertRaisesRegex(InputError, "split.json.*cannot be read"):
            read_split(self.path)
        split = make_split(of_sizes(30))
        for change, words in (
            ({"test": [*split.test, split.train[0]]}, "twice"),
            ({"format": 2}, "format"),
            ({"extra": 1}, "extra"),
            ({"train": "all"}, "train"),
        ):
            self.path.write_text(json.dumps(dataclasses.asdict(split) | change))
            with self.subTest(change=change), self.assertRaisesRegex(InputError, words):
                read_split(self.path)

    def test_ids_that_lead_out_of_the_cache_are_refused_where_they_are_read(self):
        content = dataclasses.asdict(manifest(entry("1", "1")))
        for name in ("../../P/x", "/x", "a/b", "..", "", "x\n", "x" * 65):
            content["cases"][0]["id"] = name
            self.path.write_text(json.dumps(content))
            with self.subTest(name=name), self.assertRaisesRegex(InputError, r"cases\.0: id must be"):
                read_json(self.path, Manifest, "")

    def test_the_card_holds_salted_hashes_of_what_was_learnt_from(self):
        cases = manifest(*(entry(str(n), str(n), [9.0], series=f"uid{n}") for n in range(20)))
        split = make_split(cases)
        hashes = set(training_cases(cases, split).sha256)
        for case in cases.cases:
            self.assertEqual(salted(split.salt, case.scan_sha256) in hashes, case.id not in split.test)
            # The salt travels with the card, so the UID of the series would be found by trying.
            self.assertNotIn(salted(split.salt, case.series_uid_sha256), hashes)
        self.assertEqual(len(hashes), len(split.train) + len(split.validation))
        with self.assertRaisesRegex(InputError, "no case 'gone'"):
            training_cases(cases, dataclasses.replace(split, train=("gone",)))


if __name__ == "__main__":
    unittest.main()
