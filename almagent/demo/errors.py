"""What can go wrong on stage."""


class DemoError(Exception):
    """The demo cannot go on. One line that begins with "cannot", for the person at the terminal."""
