"""pageserver: any page of a stock PostgreSQL at any LSN."""
