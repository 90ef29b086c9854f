"""The complete check of networks behind a hard quantizer."""
