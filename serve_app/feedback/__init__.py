"""People's feedback: signed search ids, and events that become preferences."""
