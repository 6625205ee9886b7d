"""The parts of the git source: how git is run, how it is let in, what it fetched, what is exported."""
