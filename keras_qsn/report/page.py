"""An evaluation as one HTML page that needs nothing else."""

import datetime

import markupsafe

from keras_qsn._core.shares import wilson_interval
from keras_qsn.report import charts
from keras_qsn.report import summary
from keras_qsn.report import tables
from keras_qsn.report import templates
from keras_qsn.report.pictures import drawable
from keras_qsn.version import __version__

_ICONS = {"pass": "✓", "warn": "!", "fail": "✕", "none": "–"}
_NAME = markupsafe.Markup("<bdi>{}</bdi><small>{}</small>")


def html_page(evaluation, pictures):
    """The page as text; `pictures` is a list of `Picture`."""
    count = len(evaluation.y)
    status, verdict = summary.verdict(evaluation)
    return templates.render(
        "page.html",
        title=summary.title(evaluation),
        made=made(),
        settings=evaluation.settings,
        robust=_accuracy(evaluation.robust_accuracy, count),
        clean=_accuracy(evaluation.clean_accuracy, count),
        facts=summary.facts(evaluation),
        status=status,
        icon=_icon(status),
        verdict=verdict,
        masking=summary.masking(evaluation),
        broke=_broke(evaluation),
        missed=_missed(evaluation),
        checks=_checks(evaluation),
        curve=tables.curve(evaluation),
        worst_of_curve=charts.worst_of_curve(evaluation),
        charts={
            title: templates.on_each_ground(plot, evaluation)
            for title, plot in charts.of(evaluation).items()
        },
        drawable=drawable(evaluation),
        pictures=[
            (
                picture,
                summary.class_name(evaluation, picture.label),
                summary.class_name(evaluation, picture.became),
            )
            for picture in pictures
        ],
        norm=summary.norm_name(evaluation.settings["norm"]),
        parameters=tables.parameters(evaluation),
        versions=tables.settings(evaluation),
        reading=summary.READING,
    )


def comparison_page(subject, table, lists, curves, caption, **given):
    """Several models in one page, as text.

    Args:
        subject: What the numbers are of.
        table: Header and rows of text.
        lists: `{title: [sentence, ...]}`.
        curves: `{title: arguments of charts.plot_models}`.
        caption: Of the curves.
        **given: `kind` and `title` of the page; `lines` below it; and
            `pictures`, `{name: [(caption, image in [0, 1]), ...]}`.
    """
    return templates.render(
        "comparison.html",
        subject=subject,
        table=table,
        lists=lists,
        charts={
            title: templates.on_each_ground(charts.plot_models, *arguments)
            for title, arguments in curves.items()
        },
        caption=caption,
        **given,
    )


def made():
    """When and by what a page is made."""
    return f"{datetime.date.today()}, keras_qsn {__version__}"


def _accuracy(share, count):
    low, high = wilson_interval(share, count)
    return {"share": share, "low": low, "high": high}


def _icon(status):
    """A sign for a status, which the word beside it repeats."""
    return markupsafe.Markup(
        f'<i class="icon" aria-hidden="true">{_ICONS[status]}</i>'
    )


def _broke(evaluation):
    """Header and rows of the attacks that broke images."""
    header, rows = tables.attacks(evaluation)
    return header[:-1], [
        [_NAME.format(name, summary.effort(outcome.step)), *rest]
        for outcome, (name, *rest, _) in zip(evaluation.outcomes, rows)
        if len(outcome.broken)
    ]


def _missed(evaluation):
    """Of each threat model, header and rows of those that broke none."""
    header, rows = tables.attacks(evaluation)
    columns = [header.index(c) for c in ("tried", "blind images", "seconds")]
    missed = {}
    for outcome, (name, threat, *rest) in zip(evaluation.outcomes, rows):
        if not len(outcome.broken):
            cells = [rest[i - 2] for i in columns]
            name = _NAME.format(name, summary.effort(outcome.step))
            missed.setdefault(threat, []).append([name, *cells])
    header = ["attack", *(header[i] for i in columns)]
    return {threat: (header, rows) for threat, rows in missed.items()}


def _checks(evaluation):
    """Of each status, worst first: the checks, and their header and rows."""
    name_cell = markupsafe.Markup('<span id="check-{}">{}</span>')
    attack_cell = markupsafe.Markup("{}<small>{}</small>")
    header, rows = tables.checks(evaluation)
    del header[5], header[2]
    found = {}
    for status in ("fail", "warn", "pass", "none"):
        chosen, cells = [], []
        for check, row in zip(evaluation.checks, rows):
            if check.status != status:
                continue
            number, name, _, value, meaning, attack = row
            name = name_cell.format(check.key, name)
            # The attack is long: below the name it needs no column.
            name = attack_cell.format(name, attack) if attack else name
            chosen.append(check)
            cells.append([number, name, value, meaning])
        if chosen:
            found[status] = {
                "icon": _icon(status),
                "words": summary.STATUS[status],
                "checks": chosen,
                "table": (header, cells),
            }
    return found
