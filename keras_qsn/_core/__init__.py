"""What knows no domain: files, progress, layers while traced, products."""
