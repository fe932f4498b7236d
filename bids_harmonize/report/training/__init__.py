"""The page of a training and the contact sheet of its reference group."""
