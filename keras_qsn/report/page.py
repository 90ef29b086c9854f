"""An evaluation as one HTML page that needs nothing else."""

import markupsafe

from keras_qsn._core.shares import wilson_interval
from keras_qsn.report import charts
from keras_qsn.report import summary
from keras_qsn.report import tables
from keras_qsn.report import templates
from keras_qsn.report.pictures import drawable

_ICONS = {"pass": "✓", "warn": "!", "fail": "✕", "none": "–"}


def html_page(evaluation, pictures):
    """The page as text; `pictures` is a list of `Picture`."""
    count = len(evaluation.y)
    status, verdict = summary.verdict(evaluation)
    return templates.render(
        "page.html",
        settings=evaluation.settings,
        robust=_accuracy(evaluation.robust_accuracy, count),
        clean=_accuracy(evaluation.clean_accuracy, count),
        facts=summary.facts(evaluation),
        status=status,
        icon=_icon(status),
        verdict=verdict,
        masking=summary.masking(evaluation),
        attacks=_attacks(evaluation),
        checks=_checks(evaluation),
        curve=tables.curve(evaluation),
        charts={
            title: {
                ground: templates.svg(plot(evaluation, theme))
                for ground, theme in charts.THEMES.items()
            }
            for title, plot in charts.of(evaluation).items()
        },
        drawable=drawable(evaluation),
        pictures=pictures,
        norm=summary.norm_name(evaluation.settings["norm"]),
        versions=tables.settings(evaluation),
        reading=summary.READING,
    )


def _accuracy(share, count):
    low, high = wilson_interval(share, count)
    return {"share": share, "low": low, "high": high}


def _icon(status):
    """A sign for a status, which the word beside it repeats."""
    return markupsafe.Markup(
        f'<i class="icon" aria-hidden="true">{_ICONS[status]}</i>'
    )


def _attacks(evaluation):
    # The parameters are long: below the name they need no column.
    cell = markupsafe.Markup("<bdi>{}</bdi><small>{}</small>")
    header, rows = tables.attacks(evaluation)
    return header[:-1], [
        [cell.format(name, parameters), *rest]
        for name, *rest, parameters in rows
    ]


def _checks(evaluation):
    name_cell = markupsafe.Markup('<span id="check-{}">{}</span>')
    attack_cell = markupsafe.Markup("{}<small>{}</small>")
    status_cell = markupsafe.Markup('<span class="status {}">{}{}</span>')
    header, rows = tables.checks(evaluation)
    cells = []
    for check, row in zip(evaluation.checks, rows):
        number, name, status, value, meaning, attack = row
        name = name_cell.format(check.key, name)
        # The attack is long: below the name it needs no column.
        name = attack_cell.format(name, attack) if attack else name
        status = status_cell.format(check.status, _icon(check.status), status)
        cells.append([number, name, status, value, meaning])
    return header[:-1], cells
