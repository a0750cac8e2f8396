"""From measured tables to device parameter files with their uncertainty."""
