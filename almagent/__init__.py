"""Host agent for ALM stacks."""

__version__ = "0.1.0"
