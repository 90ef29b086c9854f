"""What attacks look at in place of a model's own logits, one file a view."""
