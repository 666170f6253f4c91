"""Curves of a training, one line from the first phase to the last whatever stopped in between, for any logger of Lightning."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from nlstseg_training.evaluation.report.curves import CURVES_FILE, LOG_FOLDER, PANEL_FOLDER, read_curves
from NLSTSegLib.disk.atomic_file import atomic_file, write_text
from NLSTSegLib.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LoggerName = Literal["tensorboard", "csv", "mlflow", "wandb"]

EVERY_STEPS = 25
"""Steps between the points of the learning rate and of the loss of single steps."""

PACKAGES = {"mlflow": "mlflow", "wandb": "wandb"}
"""Which loggers need more than the extra ``train``."""


@dataclass(frozen=True)
class RunPart:
    """Where a training lies in its run, and where its curves go."""

    folder: Path
    """Folder of the run."""
    phase: str
    number: int = 1
    first_step: int = 0
    """Steps of the phases before."""
    logger: LoggerName = "tensorboard"


class GoingOnCsv(CSVLogger):
    """Lightning's table, which keeps the rows of before up to the step that the training goes on from."""

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__(folder, LOG_FOLDER, version="")
        rows = [row for row in read_curves(folder / LOG_FOLDER / CURVES_FILE) if row["step"] <= step]
        # Making the writer removes the file.
        self.experiment.metrics = rows


def make_loggers(part: RunPart, step: int) -> list[Logger]:
    """The table, and the logger of ``part``; points after ``step``, from which the training goes on, are taken back.

    Raises :class:`InputError` when the package of the logger is not installed.
    """
    loggers: list[Logger] = [GoingOnCsv(part.folder, step)]
    try:
        if part.logger == "tensorboard":
            loggers.append(TensorBoardLogger(part.folder, "tensorboard", version="", purge_step=step + 1))
        elif part.logger == "mlflow":
            loggers.append(_mlflow(part))
        elif part.logger == "wandb":
            from lightning.pytorch.loggers import WandbLogger

            own_id = hashlib.sha256(str(part.folder.absolute()).encode()).hexdigest()[:16]
            loggers.append(WandbLogger(part.folder.name, save_dir=part.folder, id=own_id, project="nlstseg", resume="allow"))
    except ModuleNotFoundError as error:
        package = PACKAGES[part.logger]
        raise InputError(f"the logger '{part.logger}' needs a package that is not here; run 'pip install {package}'") from error
    return loggers


def _mlflow(part: RunPart) -> Logger:
    """On the server that MLFLOW_TRACKING_URI names, else in the run's ``mlflow.db``; one run of it, whose number is kept."""
    # Read when mlflow is imported: without it, it tells its makers that it was used.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from lightning.pytorch.loggers import MLFlowLogger

    kept = part.folder / LOG_FOLDER / "mlflow_run"
    folder = part.folder.absolute()
    server = os.environ.get("MLFLOW_TRACKING_URI")
    logger = MLFlowLogger(
        "nlstseg",
        run_name=part.folder.name,
        run_id=kept.read_text(encoding="utf-8").strip() if kept.exists() else None,
        tracking_uri=server or f"sqlite:///{(folder / 'mlflow.db').as_posix()}",
        artifact_location=None if server else (folder / "mlflow").as_uri(),
    )
    if not kept.exists():
        write_text(kept, str(logger.run_id))
    return logger


class Curves(lightning.Callback):
    """Hands what is measured to the loggers: losses and metrics every epoch, rate and loss every few steps."""

    def __init__(self, part: RunPart) -> None:
        self.part = part

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % EVERY_STEPS == 0:
            rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
            self.put(trainer, {"learning_rate": max(rates), "loss_of_step": float(outputs["loss"])})

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.put(trainer, values | {"epoch": trainer.current_epoch + 1, "phase": self.part.number})
        for logger in trainer.loggers:
            logger.save()

    def put(self, trainer: lightning.Trainer, values: Mapping[str, float]) -> None:
        """Numbers at the step that runs."""
        for logger in trainer.loggers:
            logger.log_metrics(dict(values), self.step(trainer))

    def show(self, trainer: lightning.Trainer, name: str, figure: Figure) -> None:
        """A picture, as a file of the run, and where the logger takes one."""
        if not trainer.is_global_zero:
            return
        step = self.step(trainer)
        with atomic_file(self.part.folder / PANEL_FOLDER / f"{name}-{step:07d}.png") as partial:
            figure.savefig(partial, format="png", dpi=90)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_figure(name, figure, step)
            elif self.part.logger == "wandb" and not isinstance(logger, CSVLogger):
                logger.log_image(name, [figure], step=step)
            elif self.part.logger == "mlflow" and not isinstance(logger, CSVLogger):
                logger.experiment.log_figure(logger.run_id, figure, f"{name}-{step:07d}.png")

    def step(self, trainer: lightning.Trainer) -> int:
        """Steps since the run began."""
        return self.part.first_step + trainer.global_step

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("phase", f"{self.part.number}: {self.part.phase}", self.step(trainer))
