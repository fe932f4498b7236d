"""Pages and figures: rendering only, of results that are given."""
