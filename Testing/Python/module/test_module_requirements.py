"""Packages are installed on Apply, after one question, torch through the PyTorch extension; each refusal ends in words.

PyTorchUtils, slicer.packaging and the manager of extensions exist only inside Slicer: here they are stand-ins that install
into a folder, or fail, and note what they were asked for.
"""

import importlib
import sys
import tempfile
import tomllib
import unittest
from pathlib import Path
from subprocess import CalledProcessError
from types import ModuleType, SimpleNamespace
from unittest import mock

from packaging.requirements import Requirement

from NLSTSegLib.errors import InputError
from NLSTSegLib.jobs.requirements import HIGHDICOM, TORCH, module_of, read_requirements, unmet
from slicer_stand_in import host
from slicer_stand_in.case import ModuleTestCase

ROOT = Path(__file__).resolve().parents[3]


PACKAGES = {"pillow": "PIL", "pydicom": "pydicom", "rich": "rich", "safetensors": "safetensors", "typer": "typer"}
"""What Resources/requirements.txt names, with the modules."""


class Site:
    """A folder of packages, the only one that Python sees besides what is loaded and its own library."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_online = True

    def install(self, name: str, version: str, module: str = "") -> None:
        """As pip does, or as it fails without internet."""
        if not self.is_online:
            raise CalledProcessError(1, ["pip", "install", name])
        for old in self.folder.glob(f"{name}-*.dist-info"):
            (old / "METADATA").unlink()
            old.rmdir()
        info = self.folder / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (self.folder / (module or name)).mkdir(exist_ok=True)
        (self.folder / (module or name) / "__init__.py").write_text(f"__version__ = {version!r}\n")


class ReadTest(unittest.TestCase):
    def setUp(self):
        self.site = Site(Path(self.enterContext(tempfile.TemporaryDirectory())))
        self.enterContext(mock.patch.object(sys, "path", [str(self.site.folder), *sys.path]))

    def test_versions_are_compared_as_numbers(self):
        for installed, wanted, met in (
            ("2.10.1", ">=2.9", True),
            ("2.9", ">=2.10", False),
            ("2.6.0+cpu", ">=2.6", True),
            ("2.6", ">=2.6.1", False),
            ("3.0.dev1", ">=3.0", False),
            ("3.1.dev1", ">=3.0", True),
            ("1", "", True),
        ):
            self.site.install("madeup", installed)
            importlib.invalidate_caches()
            self.assertEqual(unmet([Requirement(f"madeup{wanted}")]) == [], met, (installed, wanted))

    def test_a_module_without_metadata_counts_and_nothing_is_imported(self):
        (self.site.folder / "homemade.py").write_text("raise RuntimeError('was imported')")
        importlib.invalidate_caches()
        wanted = [Requirement("homemade>=9"), Requirement("absent")]
        self.assertEqual(unmet(wanted), [Requirement("absent")])

    def test_file_agrees_with_what_the_package_needs_and_leaves_torch_and_slicer_s_own_alone(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        needed = {Requirement(text).name.lower(): Requirement(text) for text in project["dependencies"]}
        found = {requirement.name: requirement for requirement in read_requirements()}
        self.assertEqual(set(found), set(PACKAGES))
        for name, requirement in {**found, "torch": TORCH}.items():
            self.assertEqual(needed[name].specifier, requirement.specifier, name)
        self.assertIn(str(HIGHDICOM), project["optional-dependencies"]["dicom"])


@unittest.skipIf(host.inside_slicer(), "Slicer's own packages are not to be changed")
class RequirementsTestCase(ModuleTestCase):
    """``self.site`` is empty, so everything is missing; ``self.calls`` is what the stand-ins were asked for."""

    def setUp(self):
        super().setUp()
        # Slicer has it; it stays after the folder that it came from is hidden.
        import SimpleITK  # noqa: F401
        import slicer

        self.site = Site(Path(self.enterContext(tempfile.TemporaryDirectory())))
        path = [str(self.site.folder), *(entry for entry in sys.path if "site-packages" not in entry)]
        self.enterContext(mock.patch.object(sys, "path", path))
        self.enterContext(mock.patch.dict(sys.modules))
        for name in [n for n in sys.modules if n.partition(".")[0] in {"torch", "PyTorchUtils", "highdicom", *PACKAGES.values()}]:
            del sys.modules[name]
        self.calls = []
        self.enterContext(mock.patch.object(type(slicer.app), "testingEnabled", return_value=False))
        self.add_torch_utils()
        self.add_packaging()
        from NLSTSegLib.widgets import requirements

        self.requirements = requirements

    def add_torch_utils(self, answer: str = "2.9.0") -> None:
        """The module of the PyTorch extension; ``answer`` is the version it installs, or empty to decline."""

        class PyTorchUtilsLogic:
            @staticmethod
            def installTorch(  # noqa: N802
                askConfirmation=False,  # noqa: N803
                forceComputationBackend=None,  # noqa: N803
                torchVersionRequirement=None,  # noqa: N803
                torchvisionVersionRequirement=None,  # noqa: N803
            ):
                self.calls.append(("installTorch", askConfirmation, torchVersionRequirement))
                if not answer:
                    return None
                self.site.install("torch", answer)
                importlib.invalidate_caches()
                return importlib.import_module("torch")

        sys.modules["PyTorchUtils"] = ModuleType("PyTorchUtils")
        sys.modules["PyTorchUtils"].PyTorchUtilsLogic = PyTorchUtilsLogic

    def add_packaging(self) -> None:
        """``slicer.packaging`` of 5.12, as far as it is used."""

        def pip_ensure(requirements, prompt_install=True, prompt_restart=True, requester=None, skip_in_testing=True):
            self.calls.append(("pip_ensure", list(requirements), prompt_install, prompt_restart))
            for text in requirements:
                self.pip(text)

        module = ModuleType("slicer.packaging")
        module.pip_ensure = pip_ensure
        sys.modules["slicer.packaging"] = module

    def pip(self, text: str) -> None:
        wanted = Requirement(text)
        version = next(iter(wanted.specifier)).version + ".5"
        self.site.install(wanted.name, version, PACKAGES[wanted.name])

    def install_all(self, but: str = "") -> None:
        for requirement in [TORCH, *read_requirements()]:
            if requirement.name != but:
                oldest = next(iter(requirement.specifier)).version
                self.site.install(requirement.name, f"{oldest}.9", module_of(requirement))

    def manager(self, *, installs: bool = True, has_it: bool = False) -> SimpleNamespace:
        """The manager of extensions, with a shop that has the extension or not."""
        import slicer

        manager = SimpleNamespace(interactive=True, is_installed=has_it, asked=[])

        def install(name: str, restart: bool) -> bool:
            manager.asked.append((name, restart, manager.interactive))
            manager.is_installed = installs
            return installs

        manager.isExtensionInstalled = lambda name: manager.is_installed and name == "PyTorch"
        manager.installExtensionFromServer = install
        self.enterContext(mock.patch.object(type(slicer.app), "extensionsManagerModel", return_value=manager))
        return manager

    def ensure(self) -> None:
        self.requirements.ensure_requirements()

    def refused(self, *words: str) -> str:
        with self.assertRaises(InputError) as caught:
            self.ensure()
        text = str(caught.exception)
        for word in words:
            self.assertIn(word, text)
        self.assertNotIn("\n", text)
        return text


class OnePackageTest(RequirementsTestCase):
    """highdicom, which DICOM SEG and SR alone need."""

    def ensure(self) -> None:
        self.requirements.ensure_package(HIGHDICOM, "Writing DICOM SEG and SR")

    def pip(self, text: str) -> None:
        self.site.install("highdicom", "0.28.2")

    def test_it_is_installed_after_asking_and_not_asked_for_again(self):
        self.talk.answer(True)
        self.ensure()
        self.ensure()
        self.assertEqual(self.calls, [("pip_ensure", ["highdicom>=0.27"], False, False)])
        (question,) = self.talk.texts("question")
        self.assertIn("Writing DICOM SEG and SR needs the Python package highdicom>=0.27", question)

    def test_an_older_version_is_named_and_a_refusal_changes_nothing(self):
        self.site.install("highdicom", "0.22.0")
        self.talk.answer(False)
        self.refused("needs highdicom>=0.27", "declined")
        self.assertIn("in place of version 0.22.0", self.talk.texts("question")[0])
        self.assertEqual(self.calls, [])

    def test_without_internet_and_in_testing_mode_it_is_said(self):
        import slicer

        self.site.is_online = False
        self.talk.answer(True)
        with self.assertLogs(level="ERROR"):
            self.refused("highdicom>=0.27 could not be installed", "internet")
        with mock.patch.object(type(slicer.app), "testingEnabled", return_value=True):
            self.refused("not done in testing mode")


class InstallTest(RequirementsTestCase):
    def test_nothing_missing_asks_nothing(self):
        self.install_all()
        self.ensure()
        self.assertEqual((self.calls, self.talk.messages, self.requirements.missing_requirements()), ([], [], []))

    def test_everything_is_asked_once_and_torch_comes_by_the_extension(self):
        self.talk.answer(True)
        self.ensure()
        packages = [str(requirement) for requirement in read_requirements()]
        self.assertEqual(self.calls, [("installTorch", False, ">=2.6"), ("pip_ensure", packages, False, False)])
        (question,) = self.talk.texts("question")
        for word in ("torch", "3 GB", "20 MB", *PACKAGES):
            self.assertIn(word, question)
        self.assertEqual(self.requirements.missing_requirements(), [])

    def test_only_what_is_missing_or_too_old_is_installed(self):
        self.install_all(but="typer")
        self.site.install("pydicom", "2.4.4")
        self.talk.answer(True)
        self.ensure()
        self.assertEqual(self.calls, [("pip_ensure", ["pydicom>=3.0", "typer>=0.16"], False, False)])
        self.assertNotIn("torch", self.talk.texts("question")[0])

    def test_slicer_5_10_has_no_packaging(self):
        import slicer

        sys.modules["slicer.packaging"] = None
        self.install_all(but="rich")
        self.talk.answer(True)
        with mock.patch.object(slicer.util, "pip_install", lambda names: [self.pip(name) for name in names], create=True):
            self.ensure()
        self.assertEqual(self.requirements.missing_requirements(), [])

    def test_torch_is_never_imported_to_look_for_it(self):
        self.install_all()
        self.ensure()
        self.assertNotIn("torch", sys.modules)


class RefusalTest(RequirementsTestCase):
    def test_declined(self):
        self.talk.answer(False)
        self.refused("torch>=2.6", "typer", "declined")
        self.assertEqual(self.calls, [])
        # Another Apply asks again.
        self.talk.answer(True)
        self.ensure()

    def test_testing_mode_neither_asks_nor_installs(self):
        import slicer

        with mock.patch.object(type(slicer.app), "testingEnabled", return_value=True):
            self.refused("torch>=2.6", "testing mode")
        self.assertEqual((self.calls, self.talk.messages), ([], []))

    def test_what_comes_with_slicer_is_never_installed(self):
        for name in [name for name in sys.modules if name.partition(".")[0] == "SimpleITK"]:
            del sys.modules[name]
        self.refused("SimpleITK comes with Slicer and is missing", "install Slicer again")
        self.assertEqual((self.calls, self.talk.messages), ([], []))

    def test_no_extension_and_no_manager(self):
        del sys.modules["PyTorchUtils"]
        self.refused("PyTorch extension is missing", "Extensions Manager")
        self.assertEqual((self.calls, self.talk.messages), ([], []))

    def test_no_extension_declined(self):
        del sys.modules["PyTorchUtils"]
        manager = self.manager()
        self.talk.answer(False)
        self.refused("PyTorch extension is missing", "Extensions Manager")
        self.assertEqual((manager.asked, self.calls), ([], []))

    def test_no_extension_installed_then_restart_is_said_and_not_asked_again(self):
        del sys.modules["PyTorchUtils"]
        manager = self.manager()
        self.talk.answer(True)
        self.refused("was installed", "restart Slicer")
        # Without a restart by itself, and without questions on top of ours.
        self.assertEqual((manager.asked, manager.interactive), ([("PyTorch", False, False)], True))
        self.refused("not loaded", "restart Slicer")
        self.assertEqual(len(self.talk.messages), 1)
        self.assertEqual(self.calls, [])

    def test_no_extension_and_offline(self):
        del sys.modules["PyTorchUtils"]
        self.manager(installs=False)
        self.talk.answer(True)
        self.refused("could not be installed", "connection to the internet")

    def test_torch_offline(self):
        self.site.is_online = False
        self.talk.answer(True)
        with self.assertLogs(level="ERROR"):
            self.refused("torch could not be installed", "CalledProcessError", "connection to the internet")
        self.assertEqual([call[0] for call in self.calls], ["installTorch"], "it goes on after a failure")

    def test_packages_offline(self):
        self.install_all(but="typer")
        self.site.is_online = False
        self.talk.answer(True)
        with self.assertLogs(level="ERROR"):
            self.refused("typer>=0.16 could not be installed", "CalledProcessError", "connection to the internet")
        # Once there is a connection it can be tried again.
        self.site.is_online = True
        self.talk.answer(True)
        self.ensure()

    def test_the_extension_does_not_install(self):
        self.add_torch_utils(answer="")
        self.talk.answer(True)
        self.refused("did not install torch", "PyTorch Utils")
        self.assertEqual([call[0] for call in self.calls], ["installTorch"])

    def test_torch_that_is_too_old(self):
        self.site.install("torch", "2.1.0+cpu")
        self.refused("torch 2.1.0+cpu is installed", "needs torch>=2.6", "PyTorch Utils")
        self.assertEqual((self.calls, self.talk.messages), ([], []))

    def test_an_installation_that_is_not_found_afterwards(self):
        self.add_torch_utils(answer="1.0")
        self.talk.answer(True)
        self.refused("torch>=2.6", "restart Slicer")

    def test_loaded_package_that_was_exchanged(self):
        self.install_all()
        self.site.install("pydicom", "2.4.4")
        importlib.invalidate_caches()
        importlib.import_module("pydicom")
        self.talk.answer(True)
        self.refused("pydicom got another version", "restart Slicer")
        # After it the new one is there.
        del sys.modules["pydicom"]
        self.ensure()
