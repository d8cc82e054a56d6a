"""The colony's gRPC services: requests in, messages out; what they do is elsewhere."""
