"""Models to and from other projects."""
