"""What each layer computes, bounded: one file for each kind of rule."""
