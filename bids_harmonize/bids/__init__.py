"""Everything that knows BIDS."""
