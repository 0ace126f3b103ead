"""People's votes: those in the table `feedback`, and users' tables of votes."""
