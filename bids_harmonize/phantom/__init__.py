"""A digital head at several sites, as a BIDS dataset: the demo and the tests run on it."""
