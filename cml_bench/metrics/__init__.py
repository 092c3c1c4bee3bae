"""From stored predictions to numbers."""
