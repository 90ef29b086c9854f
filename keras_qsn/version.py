"""The version, which results are kept under."""

__version__ = "0.1.0"
