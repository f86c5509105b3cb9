"""Put a DetectorLoss into somebody else's model; each module imports its framework itself."""
