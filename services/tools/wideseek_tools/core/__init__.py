"""What search, fetch and ingest mean, without any transport or index library."""
