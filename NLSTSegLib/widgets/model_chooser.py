"""Which model: bundled or the user's own, its card, its licence accepted once, adding and removing."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from NLSTSegLib.errors import ModelError, as_sentence
from NLSTSegLib.models.bundle import DEFAULT_MODEL, BrokenModel, ModelFiles, broken_models, list_models
from NLSTSegLib.models.card import ModelCard
from NLSTSegLib.models.store import add_model, model_path, models_at, remove_model, weights_hash
from NLSTSegLib.widgets.fitting import lay_out
from NLSTSegLib.widgets.settings import save_setting, setting

ACCEPTED = "acceptedModels"
"""Setting with the hashes of the weights whose card was accepted, separated by spaces."""


class ModelChooser:
    """Works with the widgets ``model...`` and ``...ModelButton`` of ``ui``."""

    def __init__(self, ui: Any, on_change: Callable[[], None]) -> None:
        self._ui, self._on_change = ui, on_change
        self._models: list[ModelFiles | BrokenModel] = []
        self._hash = self._fault = ""
        ui.modelComboBox.connect("currentIndexChanged(int)", self._chosen)
        ui.acceptModelButton.connect("clicked()", self._accept)
        ui.addModelFolderButton.connect("clicked()", self._add_folder)
        ui.addModelFileButton.connect("clicked()", self._add_file)
        ui.removeModelButton.connect("clicked()", self._remove)
        lay_out(ui.modelButtons, [ui.addModelFolderButton, ui.addModelFileButton, ui.removeModelButton], most_columns=3)
        self._list(setting("model", DEFAULT_MODEL))

    @property
    def path(self) -> str:
        """What :func:`NLSTSegLib.models.bundle.find_model` finds the chosen model by."""
        return _path(self._chosen_model) if self._chosen_model else DEFAULT_MODEL

    @property
    def card(self) -> ModelCard | None:
        """``None`` where the chosen model cannot be used."""
        return self._chosen_model.card if isinstance(self._chosen_model, ModelFiles) else None

    def reasons(self) -> list[str]:
        """Why the chosen model cannot be run now, in whole sentences."""
        if self._fault:
            return [self._fault]
        if self.card is not None and not self._is_accepted:
            sentence = _("Read about the model {name} and accept its licence, and that it is for research only.")
            return [sentence.format(name=self.card.name)]
        return []

    @property
    def _chosen_model(self) -> ModelFiles | BrokenModel | None:
        index = self._ui.modelComboBox.currentIndex
        return self._models[index] if 0 <= index < len(self._models) else None

    @property
    def _is_accepted(self) -> bool:
        return self._hash in setting(ACCEPTED, "").split()

    def _list(self, chosen_path: str) -> None:
        """List the models anew; the default is chosen where ``chosen_path`` is none of them."""
        self._models = [*list_models(), *broken_models()]
        combo_box = self._ui.modelComboBox
        combo_box.blockSignals(True)
        combo_box.clear()
        for model in self._models:
            combo_box.addItem(_title(model))
        paths = [_path(model) for model in self._models]
        combo_box.currentIndex = paths.index(chosen_path) if chosen_path in paths else 0
        combo_box.blockSignals(False)
        self._show()

    def _chosen(self, index: int) -> None:
        save_setting("model", self.path)
        self._show()
        self._on_change()

    def _show(self) -> None:
        """The card, open until it was accepted, or what is wrong."""
        model, ui = self._chosen_model, self._ui
        self._hash, self._fault = "", ""
        if model is None:
            self._fault = _("There is no model; add one.")
        elif isinstance(model, BrokenModel):
            self._fault = as_sentence(model.reason)
        else:
            try:
                self._hash = weights_hash(model)
                if not model.weights.is_file():
                    raise ModelError(f"the weights '{model.weights}' are missing; get the model again")
            except ModelError as error:
                self._fault = as_sentence(str(error))
        ui.modelFaultLabel.text = self._fault
        ui.modelFaultLabel.visible = bool(self._fault)
        ui.modelCardButton.visible = self.card is not None
        if self.card is not None:
            ui.modelCardLabel.text = _card_html(self.card)
            ui.modelDetailsLabel.text = _details_html(self.card)
            ui.modelCardButton.collapsed = self._is_accepted
        ui.acceptModelButton.visible = self.card is not None and not self._fault and not self._is_accepted
        ui.removeModelButton.enabled = model is not None and model.origin == "installed"

    def _accept(self) -> None:
        save_setting(ACCEPTED, " ".join([*setting(ACCEPTED, "").split(), self._hash]))
        self._show()
        self._on_change()

    def _add_folder(self) -> None:
        title = _("Folder of a model, or folder with several models")
        self._add(qt.QFileDialog.getExistingDirectory(self._ui.modelComboBox, title))

    def _add_file(self) -> None:
        title, kinds = _("Model"), _("Models (model.json *.pth *.pt)")
        self._add(qt.QFileDialog.getOpenFileName(self._ui.modelComboBox, title, "", kinds))

    def _add(self, path: str) -> None:
        """Add what is there; one that is refused does not stop the others."""
        if not path:
            return
        added, said, refused = [], [], []
        with slicer.util.WaitCursor():
            try:
                found = models_at(Path(path))
            except (ModelError, OSError) as error:
                found, refused = [], [as_sentence(str(error))]
            for each in found:
                try:
                    model = add_model(each)
                except ModelError as error:
                    refused.append(as_sentence(str(error)))
                    continue
                added.append(model.files)
                sentence = _("The model {name} was added.")
                if not model.is_loaded:
                    sentence = _("The model {name} was added; it is tried out at its first run, when torch is installed.")
                said.append(sentence.format(name=model.files.card.name))
        if added:
            save_setting("model", model_path(added[-1]))
            self._list(model_path(added[-1]))
            self._on_change()
        if refused:
            slicer.util.errorDisplay("\n".join([*said, *refused]))
        else:
            slicer.util.infoDisplay("\n".join(said))

    def _remove(self) -> None:
        model = self._chosen_model
        if model is None or model.origin != "installed":
            return
        folder = model.folder if isinstance(model, BrokenModel) else model.weights.parent
        question = _("Remove the model {name}? Its files in {folder} are deleted.")
        if not slicer.util.confirmOkCancelDisplay(question.format(name=_name(model), folder=folder)):
            return
        try:
            remove_model(folder)
        except ModelError as error:
            slicer.util.errorDisplay(as_sentence(str(error)))
        save_setting("model", DEFAULT_MODEL)
        self._list(DEFAULT_MODEL)
        self._on_change()


def _path(model: ModelFiles | BrokenModel) -> str:
    return str(model.folder) if isinstance(model, BrokenModel) else model_path(model)


def _name(model: ModelFiles | BrokenModel) -> str:
    return model.name if isinstance(model, BrokenModel) else model.card.name


def _title(model: ModelFiles | BrokenModel) -> str:
    if isinstance(model, BrokenModel):
        return _("{name} (cannot be used)").format(name=model.name)
    size_mb = model.weights.stat().st_size / 1e6 if model.weights.is_file() else 0.0
    text = _("{name} {version} ({size:.1f} MB)") if model.origin == "bundled" else _("{name} {version} ({size:.1f} MB, yours)")
    text = text.format(name=model.card.name, version=model.card.version, size=size_mb)
    return f"{model.card.title}: {text}" if model.card.title else text


def _card_html(card: ModelCard) -> str:
    """What a reader must know before the first use; the texts of a card are not trusted."""
    lines = [f"<b>{html.escape(card.intended_use)}</b>", f"<b>{html.escape(_('Licence'))}:</b> {html.escape(card.licence)}"]
    measured = _measured_text(card.metrics.get("validation"))
    return "".join(f"<p>{line}</p>" for line in [*lines, *([html.escape(measured)] if measured else [])])


def _details_html(card: ModelCard) -> str:
    """What it is and what it was made from."""
    lines = [html.escape(card.description)]
    for heading, text in (
        (_("Trained on"), card.training_data),
        (_("Voxels"), card.spacing_note),
        (_("Attribution"), card.attribution),
    ):
        lines.append(f"<b>{html.escape(heading)}:</b> {html.escape(text)}")
    return "".join(f"<p>{line}</p>" for line in lines)


def _measured_text(validation: Any) -> str:
    """The figures that a reader asks for, of patients that were not trained on; "" where the card has none of them."""
    if not isinstance(validation, dict):
        return ""
    parts = []
    for key, text in (
        ("lesions_found", _("{value:.0%} of the lesions found")),
        ("marks_outside_per_case", _("{value:.2g} other marks a case")),
        ("dice", _("Dice {value:.2f}")),
    ):
        figure = validation.get(key)
        value = figure.get("value") if isinstance(figure, dict) else figure
        if isinstance(value, int | float):
            parts.append(text.format(value=value))
    patients = validation.get("patients")
    where = _("On {number} patients that were not trained on: ").format(number=patients) if isinstance(patients, int) else ""
    return where + ", ".join(parts) if parts else ""
