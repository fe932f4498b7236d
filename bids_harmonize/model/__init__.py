"""The method: histograms on a grid, a CNN, tone curves. Empty, so that `card` is read without torch."""
