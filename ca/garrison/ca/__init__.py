"""See the component's README."""
