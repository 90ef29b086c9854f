"""Files that are written whole or not at all."""

import json
import os
import pathlib


def write_bytes(path, content):
    """Write a file atomically."""
    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)


def write_text(path, text):
    """Write a text file atomically."""
    # A path may hold bytes that are no UTF-8.
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path, data):
    """Write data as indented JSON, atomically."""
    write_text(path, json.dumps(data, indent=2) + "\n")


def write_figure(path, figure):
    """Write a matplotlib figure as PNG, atomically."""
    path = pathlib.Path(path)
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, format="png", dpi=150, bbox_inches="tight")
    os.replace(part, path)
