"""What `QuSecNet` trains for: one file for each objective."""
