"""Bring T1w and T2w MRI scans of any scanner to the intensities of one reference group."""
