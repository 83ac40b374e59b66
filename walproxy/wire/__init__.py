"""The Postgres wire and replication protocol, without I/O but for `aio` and `libpq`."""
