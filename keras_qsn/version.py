"""The version, which results are kept under."""

__version__ = "1.1.0"
