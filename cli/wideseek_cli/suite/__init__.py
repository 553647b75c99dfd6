"""A suite on this machine: nats-server and the five services as local processes under one supervisor."""
