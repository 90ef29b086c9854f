"""Files a person reads: JSON, Markdown tables, plots, a page.

Every file is written whole or not at all.
"""

from keras_qsn._core.files import write_figure
from keras_qsn._core.files import write_json
from keras_qsn._core.files import write_text
from keras_qsn._core.shares import percent
from keras_qsn.report.folder import write_report
from keras_qsn.report.markdown import markdown_table
from keras_qsn.report.markdown import to_markdown
from keras_qsn.report.notebook import notebook_html
from keras_qsn.report.page import comparison_page
from keras_qsn.report.page import made
from keras_qsn.report.plots import plot_accuracy
from keras_qsn.report.plots import plot_images
from keras_qsn.report.schema import to_json

__all__ = [
    "comparison_page",
    "made",
    "markdown_table",
    "notebook_html",
    "percent",
    "plot_accuracy",
    "plot_images",
    "to_json",
    "to_markdown",
    "write_figure",
    "write_json",
    "write_report",
    "write_text",
]
