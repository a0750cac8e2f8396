"""Device arrays: state and what a pulse or a read does to it."""
