"""Data, calls and checks that several test modules share."""
