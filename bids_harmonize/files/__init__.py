"""Files that are complete or not there, and readers that name what is wrong."""
