"""Side by side with other simulators, in one process; each is used only where it is installed."""
