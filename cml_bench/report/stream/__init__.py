"""What a stream holds."""
