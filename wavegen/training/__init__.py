"""Training: data, losses, objectives, the loop and what it saves."""
