"""Feedback of people: signed search ids, and events that become preferences."""
