"""Efficacy and speed, side by side with what users would use instead."""
