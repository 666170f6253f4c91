"""``follow-up.html``: the table and the pictures in one file that needs no other."""

from __future__ import annotations

import base64
import io
from html import escape

from NLSTSegLib.followup.compare import Change, FollowUp
from NLSTSegLib.followup.picture import MOST_TRACKS, row_of
from NLSTSegLib.followup.table import rows
from NLSTSegLib.followup.tracks import Track
from NLSTSegLib.followup.volume_error import source_text

SHOWN = {
    "track": "track",
    "from": "from CT",
    "to": "to CT",
    "kind": "what",
    "sure": "sure",
    "by": "by",
    "baseline": "earlier",
    "followup": "later",
    "score_1": "score then",
    "score_2": "score now",
    "volume_1_mm3": "mm³ then",
    "volume_2_mm3": "mm³ now",
    "change_percent": "change %",
    "change_low": "from",
    "change_high": "to",
    "diameter_change_mm": "diameter change mm",
    "verdict": "measured",
    "vdt_days": "doubling days",
    "vdt_low": "from",
    "vdt_high": "to",
    "halving_days": "halving days",
    "halving_low": "from",
    "halving_high": "to",
    "not_faster_than_days": "not faster than days",
    "probability_at_place": "probability there",
    "look": "look at",
    "rules": "rules",
}
"""Columns of the table, by those of ``pairs.csv``; one in which nothing stands is left out."""

STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5em; color: #1c1c1f; background: #fff; }
table { border-collapse: collapse; font-size: 12px; } th, td { border: 1px solid #ccc; padding: 2px 6px; vertical-align: top; }
th { background: #eee; } td.number { text-align: right; } img { display: block; margin: 8px 0; max-width: 100%; }
.warning { color: #8a4b00; } .notice { color: #555; }
"""


def html_of(follow_up: FollowUp) -> str:
    """The whole page."""
    count = len(follow_up.points)
    days = "dates not known" if follow_up.days is None else "days " + ", ".join(f"{day:.0f}" for day in follow_up.days)
    parts = [
        "<!DOCTYPE html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>Follow-up</title><style>{STYLE}</style></head><body>',
        f"<h1>Follow-up of {count} CTs, {escape(days)}</h1>",
        '<p class="notice">Research only; not for clinical use.</p>',
    ]
    parts += [f'<p class="{escape(one.severity)}">{escape(one.message)} {escape(one.fix)}</p>' for one in follow_up.findings]
    parts.append(f"<p>{escape(source_text(follow_up.options.cv))}</p>")
    for t in range(1, count):
        rule = follow_up.recist(t)
        if rule:
            parts.append(f"<p>CT {t + 1}, {escape(rule.name)}: {escape(rule.says)} ({escape(rule.source)})</p>")
    sources = {rule.source for track in follow_up.tracks for change in _changes(follow_up, track) for rule in change.rules}
    parts.append(_table(follow_up))
    if sources:
        parts.append("<p>Rules: " + escape("; ".join(sorted(sources))) + ". They disagree; none of them is a verdict.</p>")
    for track in follow_up.tracks[:MOST_TRACKS]:
        buffer = io.BytesIO()
        row_of(follow_up, track).save(buffer, format="PNG")
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
        parts.append(f'<img alt="track {track.number}" src="data:image/png;base64,{data}">')
    parts.append("</body></html>\n")
    return "\n".join(parts)


def _changes(follow_up: FollowUp, track: Track) -> list[Change]:
    found = (follow_up.change(track, t, t - 1) for t in range(1, len(follow_up.points)))
    return [change for change in found if change]


def _table(follow_up: FollowUp) -> str:
    made = rows(follow_up)
    columns = [column for column in SHOWN if any(row[column] != "" for row in made)]
    head = "".join(f"<th>{escape(SHOWN[column])}</th>" for column in columns)
    body = []
    for row in made:
        cells = []
        for column in columns:
            kind = "" if isinstance(row[column], str) else ' class="number"'
            cells.append(f"<td{kind}>{escape(str(row[column]))}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><tr>{head}</tr>{''.join(body)}</table>"
