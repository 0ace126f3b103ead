"""What belongs to one process: the signals that end it, and its temporary folder."""
