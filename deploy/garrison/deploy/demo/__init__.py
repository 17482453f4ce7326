"""The demo: a whole mesh on one machine, and scenes that show what it does."""
