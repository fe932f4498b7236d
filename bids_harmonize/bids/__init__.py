"""Everything that knows BIDS: selecting runs, reading sidecars, writing derivatives, resuming."""
