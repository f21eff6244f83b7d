"""What every request passes through, one module each."""
