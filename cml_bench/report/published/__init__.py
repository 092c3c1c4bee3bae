"""Numbers of the literature, and what keeps them from being ranked with ours."""
