"""What Coral tells about itself: logs, and that it is ready."""
