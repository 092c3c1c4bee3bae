"""Result tables: their rows and columns, and what is said under them."""
