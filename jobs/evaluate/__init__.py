"""Measures search systems before and after alignment: recall, aesthetics, agreement with people, win rate."""
