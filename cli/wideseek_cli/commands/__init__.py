"""The commands, one module a group. Each is a thin shell around the client or the local suite."""
