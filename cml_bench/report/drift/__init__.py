"""How the answers of commercial services changed."""
