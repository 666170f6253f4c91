"""``report.html``: the figures of ``evaluation.json`` as one page that needs no network and no other file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlstseg_training.evaluation.alarms import alarms
from nlstseg_training.evaluation.report import plots
from nlstseg_training.evaluation.report.curves import curves_uri, panel_uri
from nlstseg_training.evaluation.report.pictures import Subject, picture, surest_outside, worst_lesions
from nlstseg_training.evaluation.report.text import DEFINITIONS, FEW_PATIENTS, PUBLISHED_NOTE, UNDEFINED

if TYPE_CHECKING:
    from nlstseg_training.evaluation.job import Job


def write_report(content: dict[str, Any], job: Job, path: Path, run_folder: Path | None = None) -> None:
    """Write the page of ``content``, which is what ``evaluation.json`` holds, with the curves of the training in ``run_folder``.

    Raises :class:`InputError` if it cannot.
    """
    from NLSTSegLib.disk.atomic_file import write_text

    write_text(path, make_report(content, make_pictures(content, job), run_folder))


def make_pictures(content: dict[str, Any], job: Job) -> dict[Subject, str]:
    """Pictures of the worst lesions and of the surest marks outside, as data URIs; the network is not run again."""
    from nlstseg_training.data.cache import load_case
    from NLSTSegLib.lesions.find import find_lesions, label_map

    subjects = [*worst_lesions(content["by_case"]), *surest_outside(content["by_case"])]
    made = {}
    for entry in job.entries:
        of_case = [subject for subject in subjects if subject.case == entry.id]
        if not of_case:
            continue
        case = load_case(job.cache, entry.id)
        probability = job.predict(case, entry).probability
        limits = {"threshold": content["threshold"]["value"], "min_volume_mm3": content["min_volume_mm3"]}
        marks = find_lesions(probability, case.ct, lung_mask=job.lung_mask(case), **limits)
        predicted = label_map(marks, case.ct.hu.shape)
        for subject in of_case:
            made[subject] = picture(subject, case.ct.hu, case.labels, predicted, case.ct.spacing_ijk_mm[::-1])
    return {subject: made[subject] for subject in subjects}


def make_report(content: dict[str, Any], pictures: dict[Subject, str], run_folder: Path | None = None) -> str:
    """The page: ``page.html`` filled in, with every text escaped."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "count": _count,
        "estimate": _estimate,
        "interval": _interval,
        "number": _number,
        "percent": _percent,
        "short": "{:g}".format,
    }
    template = environment.from_string((resources.files(__package__) / "page.html").read_text(encoding="utf-8"))
    cases, sweep = content["by_case"], content["sweep"]
    drawn = {
        "froc": plots.froc_plot(content["froc"]),
        "dice": plots.dice_plot(cases, content["by_diameter"]),
        "bland_altman": plots.bland_altman_plot(cases, content["volume"]["percent_of_mean"]),
        "sweep": plots.sweep_plot(sweep, content["threshold"]["value"]) if sweep else "",
    }
    return template.render(
        content=content,
        alarms=alarms(content),
        warnings=_warnings(content),
        curves=curves_uri(run_folder) if run_folder else "",
        panel=panel_uri(run_folder) if run_folder else "",
        plots=drawn,
        worst=[(subject, uri) for subject, uri in pictures.items() if subject.is_reference],
        surest=[(subject, uri) for subject, uri in pictures.items() if not subject.is_reference],
        definitions=DEFINITIONS,
        published_note=PUBLISHED_NOTE,
        reference_color=plots.REFERENCE_COLOR,
        predicted_color=plots.PREDICTED_COLOR,
    )


def _warnings(content: dict[str, Any]) -> list[str]:
    found = []
    known, incomplete = content["cases_known_to_the_model"], content["incompletely_annotated_cases"]
    if known:
        were = "was" if known == 1 else "were"
        found.append(
            f"{known} of {_count(content['cases'], 'case')} {were} used to train the model or to choose its threshold and "
            "epoch: the figures flatter it."
        )
    if content["threshold"]["chosen_by"].startswith("highest"):
        found.append(
            "The threshold was chosen on these very cases, so the figures are a little too good: report those of the test part."
        )
    if incomplete:
        found.append(
            f"In {_count(incomplete, 'case')} not every lesion is annotated: a mark outside the annotation may be a lesion there."
        )
    if content["patients"] < FEW_PATIENTS:
        found.append(
            f"{_count(content['patients'], 'patient')} can only hint at how the model does on others: mind the intervals."
        )
    return found


def _estimate(each: dict[str, Any]) -> str:
    """``0.81 (0.74-0.87)``."""
    interval = _interval(each)
    return f"{_number(each['value'])} {interval}".strip()


def _interval(each: dict[str, Any]) -> str:
    return "" if each["low"] is None else f"({_number(each['low'])}-{_number(each['high'])})"


def _number(value: float | None, decimals: int = 2) -> str:
    return UNDEFINED if value is None else f"{value:.{decimals}f}"


def _percent(share: float | None, sign: str = "+") -> str:
    return UNDEFINED if share is None else f"{round(100 * share):{sign}d} %"


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"
