"""The world around training: JetStream, the lead, Ray, the policy store, the task files."""
