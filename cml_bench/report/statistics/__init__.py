"""What differs beyond chance."""
