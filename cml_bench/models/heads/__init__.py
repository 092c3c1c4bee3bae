"""Growing heads, one file a head."""
