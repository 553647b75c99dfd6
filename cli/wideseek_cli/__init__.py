"""The `wideseek` command: a gRPC client like any other, and the supervisor of a local suite."""
