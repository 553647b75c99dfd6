"""What the .proto files cannot say: streams, subjects, buckets and the layout of a policy directory."""
