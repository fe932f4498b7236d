"""Numbers about intensities: arrays in, numbers out; no files, no torch."""
