"""Templates in use: publish and activate, try what they say, keep them as files. No HTTP, no printing."""
