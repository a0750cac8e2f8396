"""Training of neural networks on simulated analog memory."""
