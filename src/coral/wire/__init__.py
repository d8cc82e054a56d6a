"""Generated protobuf code, and the conversions between it and the model."""
