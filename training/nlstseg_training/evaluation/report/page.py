"""``report.html``: the figures of ``evaluation.json`` as one page that needs no network and no other file."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlstseg_training.evaluation.report import plots
from nlstseg_training.evaluation.report.pictures import Subject, picture, surest_outside, worst_lesions
from nlstseg_training.evaluation.report.text import DEFINITIONS, FEW_PATIENTS, PUBLISHED_NOTE, STYLE, UNDEFINED

if TYPE_CHECKING:
    from nlstseg_training.evaluation.job import Job


def write_report(content: dict[str, Any], job: Job, path: Path) -> None:
    """Write the page of ``content``, which is what ``evaluation.json`` holds; raises :class:`InputError` if it cannot."""
    from NLSTSegLib.disk.atomic_file import write_text

    write_text(path, make_report(content, make_pictures(content, job)))


def make_pictures(content: dict[str, Any], job: Job) -> dict[Subject, str]:
    """Pictures of the worst lesions and of the surest marks outside, as data URIs; the network is not run again."""
    from nlstseg_training.data.cache import load_case
    from nlstseg_training.evaluation.predictions import field_of, network_digest
    from NLSTSegLib.lesions.find import find_lesions, label_map

    subjects = [*worst_lesions(content["by_case"]), *surest_outside(content["by_case"])]
    made = {}
    network = network_digest(job.model)
    for entry in job.entries:
        of_case = [subject for subject in subjects if subject.case == entry.id]
        if not of_case:
            continue
        case = load_case(job.cache, entry.id)
        probability = job.predict(case, entry, network).probability
        limits = {"threshold": content["threshold"]["value"], "min_volume_mm3": content["min_volume_mm3"]}
        marks = find_lesions(probability, case.ct, lung_mask=field_of(case), **limits)
        predicted = label_map(marks, case.ct.hu.shape)
        for subject in of_case:
            made[subject] = picture(subject, case.ct.hu, case.labels, predicted, case.ct.spacing_ijk_mm[::-1])
    return {subject: made[subject] for subject in subjects}


def make_report(content: dict[str, Any], pictures: dict[Subject, str]) -> str:
    """The page."""
    title = f"{content['model']['name']} {content['model']['version']} on the {content['part']} part"
    threshold = content["threshold"]
    facts = (
        f"{_count(content['cases'], 'case')} of {_count(content['patients'], 'patient')} with "
        f"{_count(content['lesions'], 'lesion')}{_grid(content)}. Marks above probability {threshold['value']:g} (threshold: "
        f"{threshold['chosen_by']}) and from {content['min_volume_mm3']:g} mm³. {content['notice']}"
    )
    parts = [
        f"<h1>{_text(title)}</h1><p>{_text(facts)}</p>",
        *(f"<p class=warning>{_text(sentence)}</p>" for sentence in _warnings(content)),
        _tiles(content),
        _section("Overlap per case", _overlap_table(content["overlap"])),
        _section("Lesions found", _detection_table(content["detection"])),
        _section("Lesions by diameter and by type", _lesion_table(content)),
        _section("Free-response ROC", _froc(content["froc"]) + _plot_row(content)),
        _section("Volume of the lesions found", _volume_table(content)),
        _section("Threshold sweep", _sweep(content)) if content["sweep"] else "",
        _section("Worst lesions", _pictures(pictures, is_reference=True)),
        _section("Surest marks outside the annotation", _pictures(pictures, is_reference=False)),
        _section("Published protocol", _published(content["published_protocol"])),
        _section("What the figures mean", f"<ul>{''.join(f'<li>{_text(each)}</li>' for each in DEFINITIONS)}</ul>"),
        _section("Every case", _case_table(content["by_case"])),
    ]
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{_text(title)}</title>"
    return f"<!doctype html>\n<html lang=en><head>{head}<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>\n"


def _grid(content: dict[str, Any]) -> str:
    spacing = content["resampled_to_kji_mm"]
    return f", resampled to {' x '.join(f'{step:g}' for step in spacing)} mm" if spacing else ""


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


def _tiles(content: dict[str, Any]) -> str:
    overlap, found = content["overlap"][0], content["detection"]["lenient"]
    tiles = (
        ("Dice per case", overlap["dice"]),
        ("surface Dice at 1 mm", overlap["nsd_1mm"]),
        ("lesions found", found["sensitivity"]),
        ("Dice per lesion, 0 if missed", content["all_lesions"]["dice_all"]),
        ("marks outside per case", found["outside_per_case"]),
        ("CPM", content["froc"]["cpm"]),
    )
    cells = (
        f"<div><b>{_number(each['value'])}</b><i>{_interval(each)}</i><span>{_text(name)}</span></div>" for name, each in tiles
    )
    return f"<div class=tiles>{''.join(cells)}</div>"


def _overlap_table(rows: Sequence[dict[str, Any]]) -> str:
    head = (
        "cases",
        "number",
        "Dice",
        "median",
        "IoU",
        "NSD 1 mm",
        "NSD 2 mm",
        "both empty",
        "one empty",
        "voxel precision",
        "recall",
    )
    body = [
        (
            row["cases"],
            row["number"],
            _estimate(row["dice"]),
            _number(row["dice"]["quartiles"][1]),
            *(_estimate(row[metric]) for metric in ("iou", "nsd_1mm", "nsd_2mm")),
            row["both_empty"],
            row["one_empty"],
            _estimate(row["pooled_voxel_precision"]),
            _estimate(row["pooled_voxel_recall"]),
        )
        for row in rows
    ]
    return _table(head, body) + "<p>Mean and 95 % interval by patient; precision and recall of all voxels pooled.</p>"


def _detection_table(rules: dict[str, Any]) -> str:
    head = ("rule", "lesions", "found", "marks", "outside", "outside per case", "sensitivity", "PPV", "F1")
    body = [
        (
            rule,
            *(each[key] for key in ("lesions", "found", "marks", "outside")),
            *(_estimate(each[key]) for key in ("outside_per_case", "sensitivity", "ppv", "f1")),
        )
        for rule, each in rules.items()
    ]
    return _table(head, body)


def _lesion_table(content: dict[str, Any]) -> str:
    head = (
        "lesions",
        "number",
        "found",
        "sensitivity",
        "strict",
        "Dice of found",
        "Dice, 0 if missed",
        "volume error",
        "IQR",
        "absolute",
    )
    body = []
    for row in (content["all_lesions"], *content["by_diameter"], *content["by_type"]):
        low, _, high = row["volume_error"]["quartiles"]
        body.append(
            (
                row["lesions"],
                row["number"],
                row["found"],
                *(_estimate(row[key]) for key in ("sensitivity", "sensitivity_strict", "dice_found", "dice_all")),
                _percent(row["volume_error"]["value"]),
                f"{_percent(low)} to {_percent(high)}",
                _percent(row["absolute_volume_error"]["value"], sign=""),
            )
        )
    return _table(head, body) + "<p>Volume errors are medians over the lesions found.</p>"


def _froc(froc: dict[str, Any]) -> str:
    head = ("", *(f"{each['outside_per_scan']:g}" for each in froc["sensitivity"]), "mean (CPM)")
    row = ("lesions found", *(_estimate(each) for each in froc["sensitivity"]), _estimate(froc["cpm"]))
    over = f"Over {_count(froc['scans'], froc['scan'])} with {_count(froc['lesions'], 'lesion')}, by marks outside per scan."
    note = "" if froc["scan"] == "chest" else " Not all are whole chests, or none is, so the marks per scan mean little."
    return f"<p>{over}{note}</p>" + _table(head, [row])


def _plot_row(content: dict[str, Any]) -> str:
    shown = (
        ("FROC", plots.froc_plot(content["froc"])),
        (
            "Dice of every lesion; lines: mean of the bin, 0 for missed ones",
            plots.dice_plot(content["by_case"], content["by_diameter"]),
        ),
    )
    return f"<div class=plots>{''.join(_figure(uri, caption) for caption, uri in shown)}</div>"


def _volume_table(content: dict[str, Any]) -> str:
    agreement = content["volume"]
    head = ("difference", "lesions", "mean", "limits of agreement")
    body = [
        (name, each["pairs"], _number(each["bias"], 1), f"{_number(each['lower'], 1)} to {_number(each['upper'], 1)}")
        for name, each in (("% of the mean", agreement["percent_of_mean"]), ("mm³", agreement["mm3"]))
    ]
    plot = plots.bland_altman_plot(content["by_case"], agreement["percent_of_mean"])
    return _table(head, body) + f"<div class=plots>{_figure(plot, 'Bland-Altman plot of the volumes')}</div>"


def _sweep(content: dict[str, Any]) -> str:
    head = ("threshold", "Dice per case", "Dice per lesion", "lesions found", "F1", "marks outside per case")
    keys = ("dice", "lesion_dice", "sensitivity", "f1", "outside_per_case")
    body = [(f"{row['threshold']:g}", *(_estimate(row[key]) for key in keys)) for row in content["sweep"]]
    plot = plots.sweep_plot(content["sweep"], content["threshold"]["value"])
    return _table(head, body) + f"<div class=plots>{_figure(plot, 'All cases at each threshold')}</div>"


def _pictures(pictures: dict[Subject, str], *, is_reference: bool) -> str:
    shown = [(subject, uri) for subject, uri in pictures.items() if subject.is_reference == is_reference]
    if not shown:
        return "<p>None.</p>"
    figures = "".join(_figure(uri, f"{subject.case}: {subject.caption}") for subject, uri in shown)
    key = "<span class=reference>reference (solid)</span>, <span class=predicted>predicted (dashed)</span>; bar: 10 mm"
    return f"<p>{key}.</p><div class=pictures>{figures}</div>"


def _published(published: dict[str, Any]) -> str:
    head = ("“published protocol” IoU", "published 2D U-Net", "slices counted", "slices left out")
    counts = (published["slices_counted"], published["slices_left_out"])
    return _table(head, [(_estimate(published["iou"]), published["published_iou"], *counts)]) + f"<p>{_text(PUBLISHED_NOTE)}</p>"


def _case_table(cases: Sequence[dict[str, Any]]) -> str:
    head = ("case", "Dice", "NSD 1 mm", "NSD 2 mm", "lesions", "found", "marks outside", "warnings of the pre-flight")
    body = [
        (
            case["id"],
            *(_number(case[key]) for key in ("dice", "nsd_1mm", "nsd_2mm")),
            len(case["lesions"]),
            sum(lesion["found"] for lesion in case["lesions"]),
            sum(mark["outside"] for mark in case["marks"]),
            ", ".join(case["findings"]),
        )
        for case in cases
    ]
    return f"<details><summary>{_count(len(cases), 'case')}</summary>{_table(head, body)}</details>"


def _section(title: str, inner: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{inner}</section>"


def _table(head: Iterable[Any], body: Iterable[Iterable[Any]]) -> str:
    top = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    rows = "".join(f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>" for row in body)
    return f"<div class=scroll><table><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table></div>"


def _figure(uri: str, caption: str) -> str:
    return f'<figure><img src="{uri}" alt="{_text(caption)}"><figcaption>{_text(caption)}</figcaption></figure>'


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


def _text(value: Any) -> str:
    return html.escape(str(value))
