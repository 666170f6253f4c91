"""Python packages that a run needs: asked for once, torch the PyTorch extension's way, the rest with Slicer's pip."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from NLSTSegLib.errors import InputError
from NLSTSegLib.jobs.requirements import FROM_SLICER, TORCH, installed_version, module_of, read_requirements, unmet

if TYPE_CHECKING:
    from packaging.requirements import Requirement

EXTENSION = "PyTorch"
"""Its module is PyTorchUtils."""


def missing_requirements() -> list[str]:
    """Packages that a run needs and that are not there, or are too old, as pip would take them."""
    return [str(requirement) for requirement in unmet([TORCH, *FROM_SLICER, *read_requirements()])]


def ensure_requirements() -> None:
    """Install what is missing, after asking once what and how much; does nothing where nothing is missing.

    Raises :class:`InputError` with one sentence where the user declines, the PyTorch extension is missing, an installation
    fails (as without internet), Slicer must be restarted first, or Slicer runs in testing mode, in which nothing is asked
    and nothing is installed.
    """
    missing = missing_requirements()
    if not missing:
        return
    names = ", ".join(missing)
    if slicer.app.testingEnabled():
        raise InputError(_("{names} must be installed, which is not done in testing mode").format(names=names))
    if unmet(FROM_SLICER):
        of_slicer = " and ".join(each.name for each in unmet(FROM_SLICER))
        raise InputError(_("{names} comes with Slicer and is missing; install Slicer again").format(names=of_slicer))
    packages, wants_torch = unmet(read_requirements()), bool(unmet([TORCH]))
    if wants_torch:
        _check_torch_can_be_installed()
    if not slicer.util.confirmOkCancelDisplay(_question(packages, wants_torch), _("Install Python packages")):
        raise InputError(
            _("the run needs {names}, and the installation was declined; press Apply again to be asked again").format(names=names)
        )
    loaded = _loaded_versions(packages)
    if wants_torch:
        _install_torch()
    if packages:
        _install_packages(packages)
    _check_installed(loaded)


def ensure_package(package: Requirement, purpose: str) -> None:
    """Install a package that is needed for ``purpose`` alone ("writing ..."), after asking; does nothing where it is there.

    Raises :class:`InputError` as :func:`ensure_requirements` does.
    """
    if not unmet([package]):
        return
    if slicer.app.testingEnabled():
        raise InputError(_("{names} must be installed, which is not done in testing mode").format(names=package))
    found = installed_version(package)
    there = _(" in place of version {version}").format(version=found) if found else ""
    question = _(
        "{purpose} needs the Python package {package}. It is downloaded from the internet into Slicer's own Python{there}, "
        "with what it needs itself: less than 50 MB. Install it now?"
    )
    if not slicer.util.confirmOkCancelDisplay(
        question.format(purpose=purpose, package=package, there=there), _("Install Python packages")
    ):
        raise InputError(
            _("{purpose} needs {package}, and the installation was declined").format(purpose=purpose, package=package)
        )
    loaded = _loaded_versions([package, *read_requirements()])
    _install_packages([package])
    if unmet([package]) or any(installed_version(each) != version for each, version in loaded.items()):
        raise InputError(_("{package} was installed; restart Slicer before it is used").format(package=package))


def _question(packages: Sequence[Requirement], wants_torch: bool) -> str:
    lines = [_("NLSTSeg runs its network with Python packages that are not installed yet:"), ""]
    if wants_torch:
        lines.append(_("- torch and torchvision, by the PyTorch extension: 0.2 GB to download, with an NVIDIA card up to 3 GB"))
    if packages:
        names = ", ".join(package.name for package in packages)
        lines.append(_("- {names}: less than 20 MB").format(names=names))
    lines += ["", _("They are downloaded from the internet into Slicer's own Python, once. Install them now?")]
    return "\n".join(lines)


def _check_torch_can_be_installed() -> None:
    if found := installed_version(TORCH):
        raise InputError(
            _(
                "torch {found} is installed and NLSTSeg needs {wanted}; uninstall it in the module PyTorch Utils, "
                "restart Slicer and press Apply again"
            ).format(found=found, wanted=TORCH)
        )
    try:
        import PyTorchUtils  # noqa: F401
    except ModuleNotFoundError:
        _offer_extension()


def _offer_extension() -> None:
    """The PyTorch extension is missing: install it if there is a manager of extensions, and end with a sentence anyway."""
    model = slicer.app.extensionsManagerModel()
    by_hand = _("the PyTorch extension is missing; install it in the Extensions Manager, restart Slicer and press Apply again")
    if model is None:
        raise InputError(by_hand)
    if model.isExtensionInstalled(EXTENSION):
        raise InputError(_("the PyTorch extension is installed but not loaded; restart Slicer and press Apply again"))
    question = _("NLSTSeg runs its network with torch, which the PyTorch extension brings. Install the extension now?")
    if not slicer.util.confirmOkCancelDisplay(question, _("Install the PyTorch extension")):
        raise InputError(by_hand)
    # Its own questions would come on top of ours; the restart is left to the user, who may have unsaved work.
    asks, model.interactive = model.interactive, False
    try:
        done = model.installExtensionFromServer(EXTENSION, False)
    finally:
        model.interactive = asks
    if not done:
        raise InputError(
            _("the PyTorch extension could not be installed; check the connection to the internet and press Apply again")
        )
    raise InputError(_("the PyTorch extension was installed; restart Slicer and press Apply again"))


def _install_torch() -> None:
    import PyTorchUtils

    try:
        with slicer.util.WaitCursor():
            # Not asked again: that was our question.
            logic = PyTorchUtils.PyTorchUtilsLogic()
            torch = logic.installTorch(askConfirmation=False, torchVersionRequirement=str(TORCH.specifier))
    except Exception as error:  # the extension and pip fail in many ways: CalledProcessError, OSError, ImportError, ...
        raise _failed("torch", error) from error
    if torch is None:
        raise InputError(_("the PyTorch extension did not install torch; install it in the module PyTorch Utils"))


def _install_packages(packages: Sequence[Requirement]) -> None:
    names = [str(package) for package in packages]
    try:
        try:
            from slicer.packaging import pip_ensure
        except ImportError:  # Slicer 5.10
            slicer.util.pip_install(names)
        else:
            # What was asked is not asked again; about a restart see below.
            pip_ensure(names, prompt_install=False, prompt_restart=False, requester="NLSTSeg")
    except Exception as error:  # CalledProcessError of pip, RuntimeError where another installation runs, ...
        raise _failed(", ".join(names), error) from error


def _failed(names: str, error: Exception) -> InputError:
    logging.exception("Installation of %s failed", names)
    return InputError(
        _(
            "{names} could not be installed ({error}); check the connection to the internet and the free disk space, "
            "and see what pip says in the Python console"
        ).format(names=names, error=f"{type(error).__name__}: {error}"[:200])
    )


def _loaded_versions(packages: Sequence[Requirement]) -> dict[Requirement, str]:
    """Versions of what this Python has imported and the installation may exchange."""
    return {each: installed_version(each) for each in (*FROM_SLICER, *packages) if module_of(each) in sys.modules}


def _check_installed(loaded: dict[Requirement, str]) -> None:
    changed = [each.name for each, version in loaded.items() if installed_version(each) != version]
    if changed:
        raise InputError(
            _("{names} got another version than Slicer has loaded; restart Slicer and press Apply again").format(
                names=", ".join(changed)
            )
        )
    missing = missing_requirements()
    if missing:
        raise InputError(
            _("{names} cannot be found after the installation; restart Slicer and press Apply again").format(
                names=", ".join(missing)
            )
        )
