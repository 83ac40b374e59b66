"""walproxy: a WAL quorum for stock PostgreSQL."""
