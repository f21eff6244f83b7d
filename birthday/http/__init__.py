"""HTTP: the server, what every request passes through, the JSON API, and the probes."""
