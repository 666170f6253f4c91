"""The user's own models: copied into one folder, checked on the way in, taken out again."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import stat
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from NLSTSegLib.disk.free_name import plain_name
from NLSTSegLib.errors import ModelError
from NLSTSegLib.models.bundle import (
    CHECKPOINT_ENDINGS,
    MAXIMUM_WEIGHTS_BYTES,
    ModelFiles,
    broken_models,
    find_model,
    list_models,
    load_model,
    models_in,
)
from NLSTSegLib.models.card import CARD_FILE, read_limited
from NLSTSegLib.resources import MODELS_VARIABLE, user_models_folder

TEXT_FILES = re.compile(r"(licen[cs]e|notice|readme|copying)[^/\\]*", re.IGNORECASE)
"""Files beside a model that go with it."""

LARGEST_TEXT_BYTES = 1_000_000


@dataclass(frozen=True)
class AddedModel:
    """A model that is installed now; ``is_loaded`` says whether it was built and filled, which needs torch."""

    files: ModelFiles
    is_loaded: bool


def models_at(path: Path) -> list[Path]:
    """The bundles and published checkpoints that a user may mean by ``path``, each to be given to :func:`add_model`.

    ``path`` is a bundle folder, a ``model.json``, a checkpoint, or a folder with several of them one level below. Raises
    :class:`ModelError` when there is none.
    """
    if not path.is_dir():
        return [path.parent if path.name == CARD_FILE else path]
    found = models_in(path)
    if not found:
        found = [model for folder in sorted(path.iterdir()) if folder.is_dir() for model in models_in(folder)]
    if not found:
        endings = " or ".join(CHECKPOINT_ENDINGS)
        raise ModelError(f"in '{path}' there is no {CARD_FILE} and no checkpoint ({endings}); choose the folder of a model")
    return found


def add_model(path: Path) -> AddedModel:
    """Copy a bundle folder or a published checkpoint into the user's folder, whole or not at all.

    The copy is checked before it gets its name: the card and the hash of the weights, and by loading it where torch is
    installed. Raises :class:`ModelError` for a model that cannot be used, whose name is taken, or that cannot be copied.
    """
    source = find_model(str(path))
    name = source.card.name
    _check_name(name)
    store = _store()
    try:
        store.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            # Hidden, so that nothing takes what is half written for a model.
            half = Path(tempfile.mkdtemp(prefix=".adding-", dir=store))
            undo.callback(shutil.rmtree, half, ignore_errors=True)
            _copy(source, half)
            copy = find_model(str(half / source.weights.name if source.weights.suffix in CHECKPOINT_ENDINGS else half))
            is_loaded = _check(copy)
            folder = store / plain_name(name)
            if folder.exists():
                raise ModelError(f"the folder '{folder}' is there already; remove it or give the model another name")
            half.chmod(0o755)
            half.rename(folder)
            undo.pop_all()
    except OSError as error:
        raise ModelError(f"the model '{name}' cannot be copied to '{store}' ({error.strerror or error})") from error
    (path,) = models_in(folder)
    return AddedModel(find_model(str(path)), is_loaded)


def remove_model(folder: Path) -> None:
    """Delete an installed model, whole or broken. Raises :class:`ModelError` for any other folder."""
    store = _store()
    installed = [_folder_of(model) for model in list_models() if model.origin == "installed"]
    installed += [model.folder for model in broken_models() if model.origin == "installed"]
    if folder not in installed:
        raise ModelError(f"'{folder}' is no model that was added; only those in '{store}' can be removed")
    try:
        # One step, after which nothing finds it; what cannot be deleted then is only clutter.
        gone = Path(tempfile.mkdtemp(prefix=".removing-", dir=store))
        folder.rename(gone / folder.name)
        shutil.rmtree(gone, ignore_errors=True)
    except OSError as error:
        raise ModelError(f"the model in '{folder}' cannot be removed ({error.strerror or error})") from error


def weights_hash(files: ModelFiles) -> str:
    """SHA-256 of the weights: that of the card, or of the file where there is no card.

    Raises :class:`ModelError` when the file cannot be read.
    """
    return files.card.weights_sha256 or hashlib.sha256(read_limited(files.weights, MAXIMUM_WEIGHTS_BYTES)).hexdigest()


def model_path(files: ModelFiles) -> str:
    """What :func:`NLSTSegLib.models.bundle.find_model` finds exactly this model by: the name of a bundled one, else its path."""
    if files.origin == "bundled":
        return files.card.name
    return str(files.weights if files.weights.suffix in CHECKPOINT_ENDINGS else files.weights.parent)


def _store() -> Path:
    store = user_models_folder()
    if store is None:
        raise ModelError(f"there is no home folder to keep models in; set {MODELS_VARIABLE} to a folder for them")
    return store


def _folder_of(files: ModelFiles) -> Path:
    return files.weights.parent


def _check_name(name: str) -> None:
    """Names that differ in their case alone are the same on some file systems."""
    for model in list_models():
        if model.card.name.casefold() == name.casefold():
            where = "comes with the program" if model.origin == "bundled" else f"is installed already in '{_folder_of(model)}'"
            advice = "change the name in its card" if model.origin == "bundled" else "remove that one first"
            raise ModelError(f"a model with the name '{name}' {where}; {advice}")


def _copy(source: ModelFiles, folder: Path) -> None:
    """Card, weights and the texts beside them; what else lies there, such as checkpoints of the training, stays."""
    if source.weights.suffix not in CHECKPOINT_ENDINGS:
        shutil.copyfile(source.weights.parent / CARD_FILE, folder / CARD_FILE)
        for file in source.weights.parent.iterdir():
            # A link may lead to any file of the user's, which would then travel with the model.
            facts = file.lstat()
            if TEXT_FILES.fullmatch(file.name) and stat.S_ISREG(facts.st_mode) and facts.st_size <= LARGEST_TEXT_BYTES:
                shutil.copyfile(file, folder / file.name)
    # Read within limits: a hostile bundle may have anything in the place of its weights.
    (folder / source.weights.name).write_bytes(read_limited(source.weights, MAXIMUM_WEIGHTS_BYTES))


def _check(files: ModelFiles) -> bool:
    """Whether the network could be built; without torch the hash alone is looked at."""
    if importlib.util.find_spec("torch") is not None:
        load_model(files)
        return True
    found = hashlib.sha256(files.weights.read_bytes()).hexdigest()
    if files.card.weights_sha256 not in ("", found):
        raise ModelError(f"the weights '{files.weights}' do not have the hash that the model card states; get the model again")
    return False
