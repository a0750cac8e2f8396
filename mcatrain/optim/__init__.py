"""The rules that turn gradients into pulses."""
