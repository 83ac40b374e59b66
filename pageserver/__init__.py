"""pageserver: any page of a stock PostgreSQL at any LSN."""

__version__ = "0.1.0"
