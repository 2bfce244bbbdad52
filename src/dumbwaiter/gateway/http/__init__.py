"""HTTP itself: connections and their limits, heads and bodies, problems, endpoints. It knows no models."""
