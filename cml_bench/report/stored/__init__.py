"""Results as they are stored: collected, exported, verified, scored anew."""
